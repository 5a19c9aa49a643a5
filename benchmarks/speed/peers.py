"""The same masked-autoencoder training step in other packages, as they come from the package index.

Each gives the loss of He et al. 2022 on normalised patches, ViT-B encoder, mask ratio 0.75.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.tokens import patchify


class MONAI(nn.Module):
    """MaskedAutoEncoderViT, with the loss on masked patches that its tutorial leaves to the user."""

    def __init__(self, channels: int, roi: tuple[int, ...], decoder_dim: int, decoder_heads: int) -> None:
        super().__init__()
        from monai.networks.nets import MaskedAutoEncoderViT

        self.patch = (16,) * len(roi)
        self.net = MaskedAutoEncoderViT(
            channels, roi, 16, mlp_dim=3072, decoder_hidden_size=decoder_dim, decoder_mlp_dim=4 * decoder_dim,
            decoder_num_layers=8, decoder_num_heads=decoder_heads, qkv_bias=True, spatial_dims=len(roi),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Loss of a batch."""
        predicted, mask = self.net(images)
        target = patchify(images, self.patch)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return (((predicted - target) ** 2).mean(-1) * mask).sum() / mask.sum()


class Transformers(nn.Module):
    """ViTMAEForPreTraining with its default configuration, which is MAE-B."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        self.net = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True))

    def forward(self, images: Tensor) -> Tensor:
        """Loss of a batch."""
        return self.net(images).loss


class Lightly(nn.Module):
    """MAE from lightly's modules, put together as its documentation does."""

    def __init__(self) -> None:
        super().__init__()
        import timm
        from lightly.models import utils
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

        self.utils = utils
        vit = timm.create_model("vit_base_patch16_224", pretrained=False)
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.length = self.backbone.sequence_length
        self.decoder = MAEDecoderTIMM(
            num_patches=196, patch_size=16, embed_dim=768, decoder_embed_dim=512, decoder_depth=8,
            decoder_num_heads=16, mlp_ratio=4.0, proj_drop_rate=0.0, attn_drop_rate=0.0,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Loss of a batch."""
        size = (len(images), self.length)
        keep, hidden = self.utils.random_token_mask(size=size, mask_ratio=0.75, device=images.device)
        encoded = self.decoder.embed(self.backbone.encode(images=images, idx_keep=keep))
        tokens = self.utils.repeat_token(self.decoder.mask_token, size)
        tokens = self.decoder.decode(self.utils.set_at_index(tokens, keep, encoded.type_as(tokens)))
        predicted = self.decoder.predict(self.utils.get_at_index(tokens, hidden))
        target = self.utils.get_at_index(self.utils.patchify(images, 16), hidden - 1)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return F.mse_loss(predicted, target)


def step_of(module: nn.Module, images: Tensor, parameters: list[nn.Parameter] | None = None):
    """One training step: forward, backward, fused AdamW."""
    trained = parameters or [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss = module(images)
        (loss["loss"] if isinstance(loss, dict) else loss).backward()
        optimizer.step()

    return step
