"""`scratch`: no pre-training, the line that every method has to beat."""

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.values import Options


class ScratchOptions(Options):
    """`scratch` has no options."""


class Scratch:
    """Leaves the encoder as it was initialised."""

    name = "scratch"
    summary = "random initialisation"
    Options = ScratchOptions

    def provides(self, options: ScratchOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: ScratchOptions) -> Words:
        """Nothing."""
        return frozenset()

    def objective(self, options: ScratchOptions, encoder: object) -> None:
        """There is nothing to train."""


@hookimpl
def mae_bench_pretrainings() -> list[Scratch]:
    """Random initialisation."""
    return [Scratch()]
