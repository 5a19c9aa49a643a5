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


class Federation(Value):
    """How the training is shared by sites that keep their images. Steps and batch of the recipe are those of each site.

    sites differ by `partition` (which cases) and `shift` (how their scanners see). only: the number of the one site
    that trains, alone, for comparison with what it gains by joining.
    """

    stages: Literal["pretrain", "finetune", "both"] = Field("pretrain", description="which stages are federated")
    sites: int = Field(ge=1, le=1000, description="number of sites")
    rounds: int = Field(10, ge=1, description="meetings with the server, evenly spread over the steps of a stage")
    strategy: Literal["fedavg", "fedprox", "fedadam", "fedyogi", "fedavgm", "fedmedian", "krum", "trimmed-mean"] = (
        Field("fedavg", description="how the server combines what the sites learnt")
    )
    mu: float = Field(0.01, ge=0, description="weight of FedProx's proximal term")
    server_lr: float = Field(0.1, gt=0, description="rate of the server's optimiser (fedadam, fedyogi, fedavgm)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of fedavgm; first beta of fedadam and fedyogi")
    trim: float = Field(0.2, ge=0, lt=0.5, description="share cut off at each end by trimmed-mean")
    malicious: int = Field(0, ge=0, description="sites that krum expects to lie")
    partition: Literal["iid", "dirichlet", "sizes", "natural"] = Field("iid", description="which cases a site has")
    alpha: float = Field(0.3, gt=0, description="concentration of dirichlet and sizes: small is uneven")
    partition_seed: int = Field(0, ge=0, description="seed of the partition and of the shifts")
    intensity_shift: float = Field(0.0, ge=0, lt=1, description="largest scale and shift of a site's intensities")
    blur_shift: float = Field(0.0, ge=0, description="largest blur of a site's images, in voxels (resolution)")
    participation: float = Field(1.0, gt=0, le=1, description="share of the sites that train in a round")
    quorum: float = Field(0.5, gt=0, le=1, description="share of the asked sites that must answer a round")
    deadline: float | None = Field(None, gt=0, description="seconds after which a round goes on without the late")
    outlier: float = Field(10.0, gt=1, description="an update this many times the median norm is left out")
    optimizer: Literal["keep", "reset"] = Field("keep", description="a site's optimiser state between rounds")
    norms: Literal["share", "local"] = Field("share", description="batch-norm statistics are averaged or stay")
    half: bool = Field(False, description="send weights in half precision")
    privacy: Literal["none", "central", "local"] = Field("none", description="where differential privacy adds noise")
    clip: float = Field(1.0, gt=0, description="norm to which an update is clipped before noise is added")
    noise: float = Field(1.0, gt=0, description="noise multiplier: deviation over clip")
    delta: float = Field(1e-5, gt=0, lt=1, description="delta for which epsilon is told")
    only: int | None = Field(None, ge=0, description="train on this site's cases alone")


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
    federation: Federation | None = None

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
            # A pre-training that is not federated is shared by cells whose fine-tuning is.
            | ({"federation": {**whole["federation"], "stages": ""}} if self.federates("pretrain") else {})
        )

    def federates(self, stage: str) -> bool:
        """Whether sites share this stage (`pretrain` or `finetune`)."""
        return self.federation is not None and self.federation.stages in (stage, "both")

    def _hashed(self) -> dict[str, Any]:
        """Every field but the sentences that only describe."""
        return self.model_dump(mode="json", exclude={"protocol": {"summary"}, "recipe": {"summary"}})
