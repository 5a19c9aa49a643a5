"""RunSpec: one cell of the grid, with every default filled in before it is hashed."""

from typing import Any, Literal

from pydantic import Field

from mae_bench.recipe import Recipe
from mae_bench.task import Protocol
from mae_bench.values import Value, digest


class Choice(Value):
    """A plugin by name, with all its options."""

    name: str
    options: dict[str, Any]


class DataSource(Value):
    """Which images. The fingerprint is over the contents of every file that is used, so it travels between machines."""

    kind: Literal["demo", "real"]
    fingerprint: str
    split: str = Field("", description="digest of which case is on which side: official lists can be edited")
    skipped: tuple[str, ...] = Field((), description="cases left out by --skip-bad")


class RunSpec(Value):
    """All that decides the outcome of a run, and nothing else."""

    dataset: Choice
    data: DataSource
    protocol: Protocol
    backbone: Choice
    pretrain: Choice
    head: Choice
    recipe: Recipe
    labels: float = Field(1.0, gt=0, le=1, description="share of the training cases whose labels may be used")
    start: str = Field("", description="SHA-256 of the weights file that the encoder starts from, if any")
    seed: int = Field(0, ge=0, description="seed of fine-tuning and of the choice of labelled cases")
    pretrain_seed: int = Field(0, ge=0, description="seed of pre-training, shared by all heads and label shares")

    def key(self) -> str:
        """Content address of the whole run."""
        return digest(self._hashed())

    def pretrain_key(self) -> str:
        """Content address of the pre-trained encoder: what it depends on, so that others can share it."""
        whole = self._hashed()
        return digest(
            {
                name: whole[name]
                for name in ("dataset", "data", "protocol", "backbone", "pretrain", "start", "pretrain_seed")
            }
            | {"stage": whole["recipe"]["pretrain"], "roi": whole["recipe"]["roi"]}
        )

    def _hashed(self) -> dict[str, Any]:
        """Every field but the sentences that only describe."""
        return self.model_dump(mode="json", exclude={"protocol": {"summary"}, "recipe": {"summary"}})
