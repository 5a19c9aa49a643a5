"""Checks of backbones: what they build is an encoder, for every number of axes that they provide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mae_bench.errors import UsageError
from mae_bench.testing.contract import ContractError, Subject, make_checks, require

if TYPE_CHECKING:
    from torch import nn

    from mae_bench.testing.samples import Place

CHANNELS = (1, 4)


def _places(subject: Subject) -> Iterator[Place]:
    from mae_bench.testing.samples import Place, axes_of, small_rois

    axes = axes_of(subject.plugin.provides(subject.options))
    require(bool(axes), "provides neither 2d nor 3d")
    for each in axes:
        roi = next(small_rois(subject.plugin, subject.options, each), None)
        if roi is None:
            raise ContractError(f"refuses every small {each}-D crop")
        yield Place(subject.plugin, subject.options, roi)


def shapes(subject: Subject) -> None:
    """Encoders have dim, depth, grid, patch and channels, and features of the shapes these say."""
    import torch

    from mae_bench.testing.samples import images

    words = subject.plugin.provides(subject.options)
    for place in _places(subject):
        for channels in CHANNELS:
            encoder: Any = place.encoder(channels).eval()
            of = f"{place.roi}, {channels} channels"
            for name in ("dim", "depth", "channels"):
                require(isinstance(getattr(encoder, name, None), int), f"{of}: encoder.{name} is no whole number")
            require(encoder.channels == channels, f"{of}: encoder.channels is {encoder.channels}")
            covered = tuple(g * p for g, p in zip(encoder.grid, encoder.patch, strict=True))
            require(
                covered == place.roi, f"{of}: grid {encoder.grid} times patch {encoder.patch} is {covered}, not the roi"
            )
            with torch.no_grad():
                features = encoder(images(place.roi, channels, batch=2))
            expected = (2, encoder.dim, *encoder.grid)
            require(tuple(features.pooled.shape) == (2, encoder.dim), f"{of}: pooled is {tuple(features.pooled.shape)}")
            require(tuple(features.map.shape) == expected, f"{of}: map is {tuple(features.map.shape)}, not {expected}")
            deep = encoder.depth if "hidden" in words else 0
            require(
                len(features.hidden) == deep, f"{of}: {len(features.hidden)} hidden maps; depth and words say {deep}"
            )
            strange = [tuple(each.shape) for each in features.hidden if tuple(each.shape) != expected]
            require(not strange, f"{of}: hidden maps of shape {strange[:1]}, not {expected}")
            parts = (features.pooled, features.map, *features.hidden)
            require(all(bool(torch.isfinite(part).all()) for part in parts), f"{of}: features are not finite")


def seed_decides(subject: Subject) -> None:
    """The same seed gives the same weights, another seed others."""
    import torch

    from mae_bench.testing.training import check_same

    for place in _places(subject):
        first, again, other = (place.encoder(seed=seed).state_dict() for seed in (0, 0, 1))
        check_same(first, again, f"{place.roi}: two encoders of one seed")
        require(
            any(not torch.equal(value, other[name]) for name, value in first.items()),
            f"{place.roi}: another seed gives the same weights",
        )


def evaluation_is_a_function(subject: Subject) -> None:
    """In evaluation mode the features of an image depend on nothing but the image."""
    import torch

    from mae_bench.testing.samples import images

    for place in _places(subject):
        encoder: Any = place.encoder().eval()
        x = images(place.roi)
        with torch.no_grad():
            whole, again, alone = encoder(x), encoder(x), encoder(x[:2])
        for name in ("pooled", "map"):
            mine = getattr(whole, name)
            require(torch.equal(mine, getattr(again, name)), f"{place.roi}: {name} differs when asked twice")
            # Kernels for other batch sizes may sum in another order.
            close = torch.allclose(mine[:2], getattr(alone, name), rtol=1e-3, atol=1e-4)
            require(close, f"{place.roi}: {name} of an image depends on the other images of the batch")


def state_dict(subject: Subject) -> None:
    """An encoder that loads the state of another answers as the other does."""
    import torch

    from mae_bench.testing.samples import images

    for place in _places(subject):
        first, second = place.encoder(seed=0).eval(), place.encoder(seed=1).eval()
        second.load_state_dict(first.state_dict())
        x = images(place.roi, batch=1)
        with torch.no_grad():
            require(torch.equal(first(x).map, second(x).map), f"{place.roi}: answers differ after loading a state")


def layer_groups(subject: Subject) -> None:
    """`layer_groups` has every parameter exactly once."""
    for place in _places(subject):
        encoder: Any = place.encoder()
        groups = encoder.layer_groups()
        count = Counter(id(parameter) for group in groups for parameter in group)
        names = {id(parameter): name for name, parameter in encoder.named_parameters()}
        require(set(count) <= set(names), f"{place.roi}: layer_groups has what is no parameter of the encoder")
        wrong = [f"{name} {count[key]} times" for key, name in names.items() if count[key] != 1]
        require(not wrong, f"{place.roi}: layer_groups has {', '.join(wrong[:3])}")
        require(all(groups), f"{place.roi}: layer_groups has an empty group")


def gradients(subject: Subject) -> None:
    """Every trainable parameter takes part in the features."""
    import torch

    from mae_bench.testing.samples import images

    for place in _places(subject):
        encoder: Any = place.encoder().train()
        features = encoder(images(place.roi, batch=2))
        torch.manual_seed(0)
        # A plain sum after a norm has no gradient: every value gets a weight of its own.
        total = sum((part * torch.randn_like(part)).sum() for part in (features.pooled, features.map, *features.hidden))
        total.backward()
        check_gradients(encoder, str(place.roi))


def check_gradients(module: nn.Module, of: str) -> None:
    """Every trainable parameter has a finite gradient: processes that train together wait for each of them."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    require(bool(named), f"{of}: nothing to train")
    idle = [name for name, parameter in named if parameter.grad is None]
    require(not idle, f"{of}: no gradient reaches {', '.join(idle[:3])}")
    broken = [name for name, parameter in named if parameter.grad is not None and not parameter.grad.isfinite().all()]
    require(not broken, f"{of}: the gradient of {', '.join(broken[:3])} is not finite")


def impossible_crops(subject: Subject) -> None:
    """A crop is refused with a reason that names it, or an encoder of exactly that size is built."""
    from mae_bench.testing.samples import Place

    for place in _places(subject):
        for side in (1, 7, 33):
            roi = (side, *place.roi[1:])
            try:
                subject.plugin.check(subject.options, roi)
            except UsageError as error:
                require(str(roi) in str(error), f"{roi} is refused without naming it: {error}")
                continue
            encoder: Any = Place(subject.plugin, subject.options, roi).encoder()
            covered = tuple(g * p for g, p in zip(encoder.grid, encoder.patch, strict=True))
            require(covered == roi, f"{roi} is accepted, but grid {encoder.grid} times patch {encoder.patch} is not it")


CHECKS = make_checks(
    [
        shapes,
        seed_decides,
        evaluation_is_a_function,
        state_dict,
        layer_groups,
        gradients,
        impossible_crops,
    ]
)
