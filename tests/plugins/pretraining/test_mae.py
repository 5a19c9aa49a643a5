"""The masked autoencoder against two independent statements of it: transformers' in 2-D, the textbook in 3-D."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.engine.onednn import OneDNNLinear, preferred, use_onednn
from mae_bench.tokens import patchify, unpatchify
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.pretraining.mae import MAE, MAEOptions
from mae_bench_plugins.pretraining.mae.masking import block_order, foreground_order, random_order


def make(roi, patch, channels=2, dim=48, depth=3, heads=3, ratio=0.75, decoder=(24, 3, 3), **options):
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(channels, roi, patch, dim, depth, heads)
    blocks = dict(zip(("decoder_dim", "decoder_depth", "decoder_heads"), decoder, strict=True))
    model = MAE().objective(MAEOptions(ratio=ratio, **blocks, **options), encoder)
    with torch.no_grad():  # zero biases and unit norms would hide mistakes
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def variant(decoder, **options):
    """A model with another decoder, its weights made uneven."""
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(2, (16, 16), (4, 4), 48, 3, 3)
    chosen = MAEOptions(decoder=decoder, decoder_dim=24, decoder_depth=2, decoder_heads=3, **options)
    model = MAE().objective(chosen, encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def textbook_loss(model, images, order):
    """He et al. 2022, section 3, step by step: everything computed, then thrown away where masked."""
    encoder, batch, length = model.encoder, len(images), order.shape[1]
    rows = torch.arange(batch)[:, None]
    keep = order[:, : model.visible]
    patches = patchify(images, encoder.patch)
    tokens = encoder.patch_embed(patches) + encoder.pos_embed
    x = torch.cat([encoder.cls_token.expand(batch, -1, -1), tokens[rows, keep]], dim=1)
    for block in encoder.blocks:
        x = block(x)
    x = model.decoder_embed(encoder.norm(x))
    full = model.mask_token.expand(batch, length, -1).clone()
    full[rows, keep] = x[:, 1:]
    x = torch.cat([x[:, :1], full + model.decoder_pos_embed], dim=1)
    for block in model.decoder_blocks:
        x = block(x)
    predicted = model.decoder_pred(model.decoder_norm(x))[:, 1:]
    target = patches
    if model.normalise == "patch":
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    mask = torch.ones(batch, length)
    mask[rows, keep] = 0
    return (((predicted - target) ** 2).mean(-1) * mask).sum() / mask.sum()


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("decoder_depth", [1, 2, 4])
@pytest.mark.parametrize(("roi", "patch"), [((32, 16), (8, 8)), ((16, 16, 8), (8, 4, 4)), ((12, 12, 12), (4, 4, 4))])
def test_equals_the_textbook(roi, patch, decoder_depth, norm_pix):
    model = make(roi, patch, decoder=(24, decoder_depth, 3), norm_pix=norm_pix).double()
    images = torch.randn(3, 2, *roi, dtype=torch.float64)
    order = random_order(patchify(images, model.encoder.patch))
    gradients = []
    losses = []
    for loss in (model(images, order)["loss"], textbook_loss(model, images, order)):
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # targets pass through float32
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-7, msg=name)


def test_equals_transformers():
    """Same weights, same noise: loss and gradients of transformers' ViTMAEForPreTraining."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8,
        decoder_hidden_size=24, decoder_num_hidden_layers=3, decoder_num_attention_heads=3,
        decoder_intermediate_size=96, norm_pix_loss=True, mask_ratio=0.75, layer_norm_eps=1e-6,
    )  # fmt: skip
    peer = transformers.ViTMAEForPreTraining(config)
    model = make((32, 32), (8, 8), channels=3)
    peer.load_state_dict(peer_weights(model))
    images, noise = torch.randn(4, 3, 32, 32), torch.rand(4, 16)
    ours, theirs = model(images, noise.argsort(dim=1))["loss"], peer(images, noise=noise).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours.backward()
    theirs.backward()
    pairs = {
        "encoder.patch_embed.weight": peer.vit.embeddings.patch_embeddings.projection.weight.grad.flatten(1),
        "encoder.cls_token": peer.vit.embeddings.cls_token.grad,
        "mask_token": peer.decoder.mask_token.grad.flatten(),
        "decoder_embed.weight": peer.decoder.decoder_embed.weight.grad,
        "encoder.blocks.0.mlp.fc1.weight": peer.vit.layers[0].mlp.fc1.weight.grad,
        "decoder_blocks.0.attn.proj.weight": peer.decoder.decoder_layers[0].attention.o_proj.weight.grad,
        "decoder_blocks.2.mlp.fc2.weight": peer.decoder.decoder_layers[2].mlp.fc2.weight.grad,
    }
    own = dict(model.named_parameters())
    for name, gradient in pairs.items():
        torch.testing.assert_close(own[name].grad, gradient, rtol=1e-4, atol=1e-5, msg=name)


def peer_weights(model):
    """Our weights under the names of transformers."""
    state, found = model.state_dict(), {}
    grid, patch, channels = model.encoder.grid, model.encoder.patch, model.encoder.channels
    assert len(grid) == 2
    zero = torch.zeros(1, 1, model.encoder.dim)
    found["vit.embeddings.cls_token"] = state["encoder.cls_token"]
    found["vit.embeddings.position_embeddings"] = torch.cat([zero, state["encoder.pos_embed"][None]], dim=1)
    found["vit.embeddings.patch_embeddings.projection.weight"] = state["encoder.patch_embed.weight"].unflatten(
        1, (channels, *patch)
    )
    found["vit.embeddings.patch_embeddings.projection.bias"] = state["encoder.patch_embed.bias"]
    found["vit.layernorm.weight"], found["vit.layernorm.bias"] = (
        state["encoder.norm.weight"],
        state["encoder.norm.bias"],
    )
    found["decoder.mask_token"] = state["mask_token"][None, None]
    table = model.decoder_pos_embed
    found["decoder.decoder_pos_embed"] = torch.cat([torch.zeros(1, 1, table.shape[1]), table[None]], dim=1)
    # transformers orders a patch's values by row, column, channel; here it is channel, row, column.
    place = torch.arange(channels * math.prod(patch)).reshape(channels, *patch).permute(1, 2, 0).flatten()
    for part in ("weight", "bias"):
        found[f"decoder.decoder_embed.{part}"] = state[f"decoder_embed.{part}"]
        found[f"decoder.decoder_norm.{part}"] = state[f"decoder_norm.{part}"]
        found[f"decoder.decoder_pred.{part}"] = state[f"decoder_pred.{part}"][place]
        for ours, theirs in (("encoder.blocks", "vit.layers"), ("decoder_blocks", "decoder.decoder_layers")):
            for number in range(3):
                a, b = f"{ours}.{number}", f"{theirs}.{number}"
                for name, packed in zip("qkv", state[f"{a}.attn.qkv.{part}"].chunk(3), strict=True):
                    found[f"{b}.attention.{name}_proj.{part}"] = packed
                found[f"{b}.attention.o_proj.{part}"] = state[f"{a}.attn.proj.{part}"]
                found[f"{b}.layernorm_before.{part}"] = state[f"{a}.norm1.{part}"]
                found[f"{b}.layernorm_after.{part}"] = state[f"{a}.norm2.{part}"]
                found[f"{b}.mlp.fc1.{part}"] = state[f"{a}.mlp.fc1.{part}"]
                found[f"{b}.mlp.fc2.{part}"] = state[f"{a}.mlp.fc2.{part}"]
    return found


@settings(max_examples=60, deadline=None)
@given(ratio=st.floats(0.05, 0.95), seed=st.integers(0, 99), masking=st.sampled_from(["random", "block", "foreground"]))
def test_masking_is_a_partition(ratio, seed, masking):
    model = make((16, 16, 16), (4, 4, 4), ratio=ratio, depth=2, masking=masking)
    torch.manual_seed(seed)
    patches = torch.randn(3, 64, 128) * (torch.rand(3, 64, 1) > 0.4)
    order = model.draw(patches)
    assert model.visible == max(1, int(64 * (1 - ratio)))
    for row in order:
        assert sorted(row.tolist()) == list(range(64))
    assert not torch.equal(order[0], order[1])


@pytest.mark.parametrize(("grid", "block"), [((8, 8), 2), ((6, 7), 3), ((4, 4, 4), 2)])
def test_blocks_are_hidden_whole(grid, block):
    """All but the one that the count cuts; what is hidden comes in random order."""
    torch.manual_seed(0)
    length = math.prod(grid)
    visible = length // 3
    orders = block_order(torch.zeros(50, length, 1), grid, block, visible)
    seen = torch.zeros(50, length).scatter(1, orders[:, :visible], 1).reshape(50, *grid)
    coarse = torch.stack(torch.meshgrid(*(torch.arange(size) // block for size in grid), indexing="ij"), -1)
    blocks = coarse.flatten(0, -2).unique(dim=0, return_inverse=True)[1].reshape(grid)
    for image in seen:
        shares = torch.tensor([image[blocks == number].mean() for number in blocks.unique()])
        assert ((shares > 0) & (shares < 1)).sum() <= 1
    first = torch.stack([blocks.flatten()[order[visible : visible + 2]] for order in orders])
    assert (first[:, 0] != first[:, 1]).float().mean() > 0.5


@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_the_ratio_holds_within_the_body(ratio):
    torch.manual_seed(0)
    patches = torch.randn(20, 200, 8)
    patches[:, :150] = patches[:, :150, :1]  # three quarters are air
    visible = int(200 * (1 - ratio))
    orders = foreground_order(patches, visible)
    body = (orders[:, :visible] >= 150).sum(dim=1)
    assert (body - 50 * (1 - ratio)).abs().max() <= 1


def test_air_does_not_count_in_the_loss_with_foreground_masking():
    model = make((16, 16), (4, 4), masking="foreground").eval()
    images = torch.zeros(2, 2, 16, 16)
    images[:, :, 4:12, 4:12] = torch.randn(2, 2, 8, 8)
    order = model.draw(patchify(images, (4, 4)))
    rows = torch.arange(2)[:, None]
    patches = patchify(images, (4, 4))[rows, order]
    gap = (model.predict(patches, order) - model.target(patches[:, model.visible :])).square().mean(-1)
    inside = patches[:, model.visible :].std(-1) > 0
    assert 0 < inside.sum() < inside.numel()
    assert model(images, order)["loss"].item() == pytest.approx(gap[inside].mean().item(), rel=1e-5)


def test_channels_are_normalised_by_themselves():
    model = make((16, 16), (4, 4), per_channel=True)
    patches = torch.randn(3, 5, 32) * 4 + 2
    target = model.target(patches).reshape(3, 5, 2, 16)
    torch.testing.assert_close(target.mean(-1), torch.zeros(3, 5, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1), torch.ones(3, 5, 2), atol=1e-4, rtol=0)
    images = torch.randn(2, 2, 16, 16)
    _, masked, completed = model.eval().preview(images)
    assert torch.equal(completed[~masked.isnan()], images[~masked.isnan()])


def textbook_cross(model, patches, order):
    """Cross-attention written out per head with softmax; every masked token."""
    rows = torch.arange(len(order))[:, None]
    keep, hidden = order[:, : model.visible], order[:, model.visible :]
    encoded = model.encoder.encode(model.encoder.embed(patches[rows, keep], keep))
    seen = model.embed(encoded)
    seen[:, 1:] += model.pos[keep]
    x = model.mask_token + model.pos[hidden]
    for block in model.blocks:
        size = x.shape[-1] // block.heads
        q = block.query(block.norm1(x))
        k, v = block.key_value(seen).chunk(2, dim=-1)
        heads = []
        for start in range(0, x.shape[-1], size):
            part = slice(start, start + size)
            weights = (q[..., part] @ k[..., part].mT / size**0.5).softmax(-1)
            heads.append(weights @ v[..., part])
        x = x + block.proj(torch.cat(heads, -1))
        x = x + block.mlp(block.norm2(x))
    return model.pred(model.norm(x))


def test_the_cross_decoder_equals_its_textbook_and_leaving_tokens_out_changes_no_other():
    model = variant("cross", decoded=0.5)
    patches = patchify(torch.randn(3, 2, 16, 16), (4, 4))
    order = random_order(patches)
    rows = torch.arange(3)[:, None]
    expected = textbook_cross(model, patches, order)
    torch.testing.assert_close(model.eval().predict(patches[rows, order], order), expected)
    some = model.train().predict(patches[rows, order], order)
    assert some.shape[1] == 6  # half of the twelve that are masked
    torch.testing.assert_close(some, expected[:, :6])


def test_the_linear_decoder_shows_the_encoder_mask_tokens_and_compares_absolutely():
    """SimMIM written out in the natural order of tokens."""
    model = variant("linear", norm_pix=False)
    images = torch.randn(3, 2, 16, 16)
    patches = patchify(images, (4, 4))
    order = random_order(patches)
    mask = torch.ones(3, 16).scatter(1, order[:, : model.visible], 0)
    encoder = model.encoder
    tokens = encoder.patch_embed(patches) * (1 - mask[..., None]) + model.mask_token * mask[..., None]
    predicted = model.pred(encoder.encode(tokens + encoder.pos_embed)[:, 1:])
    expected = ((predicted - patches).abs().mean(-1) * mask).sum() / mask.sum()
    torch.testing.assert_close(model(images, order)["loss"], expected, rtol=1e-5, atol=1e-6)


def test_masked_patches_never_reach_the_encoder():
    """Changing a masked patch changes the target but not what is predicted."""
    model = make((16, 16, 16), (4, 4, 4)).eval()
    images = torch.randn(2, 2, 16, 16, 16)
    patches = patchify(images, (4, 4, 4))
    order = random_order(patches)
    changed = patches.clone()
    hidden = order[:, model.visible :]
    changed[torch.arange(2)[:, None], hidden] += 5
    rows = torch.arange(2)[:, None]
    before = model.decode(model.encode(patches[rows, order], order), order)
    after = model.decode(model.encode(changed[rows, order], order), order)
    assert torch.equal(before, after)


def test_preview_keeps_what_was_visible():
    model = make((16, 16, 16), (4, 4, 4)).eval()
    images = torch.randn(2, 2, 16, 16, 16)
    shown, masked, completed = model.preview(images)
    seen = ~masked.isnan()
    assert torch.equal(shown, images)
    assert seen.float().mean().item() == pytest.approx(model.visible / 64)
    assert torch.equal(completed[seen], images[seen])
    assert torch.isfinite(completed).all()


@pytest.mark.parametrize("decoder", ["transformer", "cross", "linear"])
def test_a_few_steps_lower_the_loss(decoder):
    model = variant(decoder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    images = torch.randn(8, 2, 16, 16)
    torch.manual_seed(1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(images)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize(("channels", "roi", "millions"), [(1, 96, 104.3), (4, 128, 118.4)])
def test_has_the_published_size(channels, roi, millions):
    """PAPER 3a: what is learnt in the 3-D MAE of BTCV and of BraTS; position tables are fixed."""
    with torch.device("meta"):
        encoder = VisionTransformerEncoder(channels, (roi,) * 3, (16,) * 3, 768, 12, 12)
        model = MAE().objective(MAEOptions(decoder_dim=384, decoder_heads=12), encoder)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_positions_are_fixed_while_reconstructing():
    model = make((16, 16), (4, 4))
    assert not model.encoder.pos_embed.requires_grad
    assert "decoder_pos_embed" not in model.state_dict()


def test_unpatchify_restores_the_image():
    image = torch.randn(2, 3, 8, 12, 16)
    assert torch.equal(unpatchify(patchify(image, (4, 2, 8)), (4, 2, 8), (2, 6, 2)), image)


@pytest.mark.skipif(not preferred(), reason="oneDNN is not preferred on this processor")
def test_onednn_linear_is_linear():
    """Values, gradients and second derivatives of nn.Linear."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(40, 24)
    fast = torch.nn.Sequential(torch.nn.Linear(40, 24))
    fast[0].load_state_dict(plain.state_dict())
    use_onednn(fast)
    assert type(fast[0]) is OneDNNLinear
    x = torch.randn(3, 7, 40, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    for module, given_x in ((plain, x), (fast, y)):
        (gradient,) = torch.autograd.grad(module(given_x).square().sum(), given_x, create_graph=True)
        gradient.square().sum().backward()
    torch.testing.assert_close(plain(x), fast(y), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.weight.grad, fast[0].weight.grad, rtol=1e-4, atol=1e-3)
