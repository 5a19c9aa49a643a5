"""From a pre-trained encoder to the one that is fine-tuned, with an account of every parameter."""

from torch import Tensor, nn

from mae_bench.errors import InputError
from mae_bench.record import Transfer

ENOUGH = 0.95


def load_encoder(encoder: nn.Module, state: dict[str, Tensor], source: str, *, waive: bool = False) -> Transfer:
    """Copy what fits by name and shape.

    Returns:
        Shares of the encoder's parameters that were loaded or left random.

    Raises:
        InputError: less than 95 % was loaded, and `waive` is not set.
    """
    own = dict(encoder.named_parameters())
    total = sum(parameter.numel() for parameter in own.values())
    fitting = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    missing = sorted(set(own) - set(fitting))
    loaded = sum(own[name].numel() for name in fitting) / total
    if loaded < ENOUGH and not waive:
        raise InputError(
            f"only {loaded:.1%} of the encoder's parameters are in the weights from {source}; {ENOUGH:.0%} are needed",
            problems=[f"left random: {name} {tuple(own[name].shape)}" for name in missing[:10]],
        )
    encoder.load_state_dict(fitting, strict=False)
    return Transfer(
        source=source,
        loaded=loaded,
        random=1 - loaded,
        details=tuple(f"random: {name}" for name in missing),
        waived=loaded < ENOUGH,
    )
