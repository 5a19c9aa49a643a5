"""`federated`: offers to run a stage that sites share. Light: Flower and torch are imported when a stage begins."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mae_bench import hookimpl
from mae_bench.errors import UsageError

MISSING = "training shared by sites needs Flower: pip install 'mae-bench[federated]'"


def require_flower() -> None:
    """Raise UsageError when Flower is not installed."""
    if find_spec("flwr") is None:
        raise UsageError(MISSING)


@hookimpl
def mae_bench_pretrain(job: Any) -> Callable[[], dict[str, Any]] | None:
    """Take over a pre-training that sites share."""
    return _shared(job)


@hookimpl
def mae_bench_finetune(job: Any) -> Callable[[], dict[str, Any]] | None:
    """Take over a fine-tuning that sites share; of any other in a federation, score the result at each site."""
    if job.spec.federation is None:
        return None
    return _shared(job) or (lambda: _simulate(job, central=True))


def _shared(job: Any) -> Callable[[], dict[str, Any]] | None:
    return (lambda: _simulate(job)) if job.spec.federates(job.stage) else None


def _simulate(job: Any, *, central: bool = False) -> dict[str, Any]:
    require_flower()
    from mae_bench_federated.simulate import simulate, train_centrally

    return train_centrally(job) if central else simulate(job)
