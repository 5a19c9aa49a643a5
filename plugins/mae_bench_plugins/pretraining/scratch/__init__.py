"""`scratch`: no pre-training, the line that every method has to beat."""

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.recipe import Recipe
from mae_bench.values import Options


class ScratchOptions(Options):
    """Options of `scratch`."""

    longer: bool = Field(
        False, description="fine-tune on as many more crops as a pre-training would see: equal total budgets"
    )


class Scratch:
    """Leaves the encoder as it was initialised."""

    name = "scratch"
    summary = "random initialisation, optionally with the budget of a pre-training on top"
    Options = ScratchOptions
    trains = False

    def provides(self, options: ScratchOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: ScratchOptions) -> Words:
        """Nothing."""
        return frozenset()

    def source(self, options: ScratchOptions) -> None:
        """Random weights."""

    def objective(self, options: ScratchOptions, encoder: object) -> None:
        """There is nothing to train."""

    def extra_samples(self, options: ScratchOptions, recipe: Recipe, cases: int) -> int:
        """The crops of the recipe's pre-training, when longer."""
        stage = recipe.pretrain
        return stage.total_steps(cases) * stage.batch * stage.crops if options.longer else 0


@hookimpl
def mae_bench_pretrainings() -> list[Scratch]:
    """Random initialisation."""
    return [Scratch()]
