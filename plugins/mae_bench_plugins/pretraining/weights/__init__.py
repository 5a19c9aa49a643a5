"""`weights`: start from a weights file, of another run or another project."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Source, Words
from mae_bench.recipe import Recipe
from mae_bench.values import Options


class WeightsOptions(Options):
    """Options of `weights`."""

    file: Path | None = Field(None, description="the weights file, of any layout that `weights inspect` knows; needed")
    waive: bool = Field(False, description="go on though less than 95 % of the encoder is in the weights")


class WeightsFile:
    """Starts from a file and trains nothing before fine-tuning."""

    name = "weights"
    summary = "a weights file of another run or project; another roi, patch or number of channels is fitted"
    Options = WeightsOptions
    trains = False

    def provides(self, options: WeightsOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: WeightsOptions) -> Words:
        """Any encoder of images."""
        return frozenset({"pooled"})

    def source(self, options: WeightsOptions) -> Source:
        """The file."""
        if options.file is None:
            raise UsageError("--pretrain weights: which? --file PATH, such as STORE/encoders/KEY/encoder.safetensors")
        if not options.file.is_file():
            raise InputError(
                f"{options.file}: no such weights file", "--file PATH must name one; `weights inspect PATH` reads it"
            )
        return Source(options.file, options.waive)

    def objective(self, options: WeightsOptions, encoder: object) -> None:
        """There is nothing to train."""

    def extra_samples(self, options: WeightsOptions, recipe: Recipe, cases: int) -> int:
        """None."""
        return 0


@hookimpl
def mae_bench_pretrainings() -> list[WeightsFile]:
    """A weights file."""
    return [WeightsFile()]
