"""What hospitals agree on before they train together: the whole specification but the images, and its hash."""

import json

from pydantic import ValidationError

from mae_bench import __version__
from mae_bench.errors import UsageError
from mae_bench.registry import registry
from mae_bench.spec import DataSource, RunSpec
from mae_bench.task import Task
from mae_bench.values import Value, digest
from mae_bench_federated import policy, privacy
from mae_bench_federated.messages import Malformed

LARGEST = 1 << 20  # characters of a study that comes from elsewhere


class Study(Value):
    """A pre-training that hospitals share. Two hospitals with one hash train the same steps of the same model, by
    one version of mae-bench.
    """

    spec: RunSpec
    task: Task
    version: str = __version__

    def key(self) -> str:
        """The recipe hash: what a hospital pins in its own configuration."""
        return digest(self.model_dump(mode="json", exclude={"spec": {"protocol": {"summary"}, "recipe": {"summary"}}}))

    def text(self) -> str:
        """As it travels."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":"))


def make_study(spec: RunSpec, task: Task) -> Study:
    """The study of a specification that was made on some hospital's images, without what is known of them.

    Raises:
        UsageError: it is none that hospitals can share.
    """
    federation = spec.federation
    if federation is None or federation.stages != "pretrain" or federation.only is not None:
        raise UsageError("between hospitals the pre-training is shared: --sites N, without --stages and --only")
    if spec.recipe.pretrain.steps is None:
        raise UsageError("hospitals have different numbers of cases, and so of epochs: say --local-steps K")
    if not registry().get("pretrain", spec.pretrain.name).plugin.trains:
        raise UsageError(f"--pretrain {spec.pretrain.name} trains nothing that hospitals could share")
    if federation.deadline is None:
        raise UsageError(
            "a hospital that hangs must not hold the others: say --deadline SECONDS, more than a round takes"
        )
    if federation.intensity_shift or federation.blur_shift:
        raise UsageError("--intensity-shift and --blur-shift are for simulations: they would distort patients' images")
    policy.check(federation)
    privacy.check(federation)
    return Study(spec=spec.model_copy(update={"data": DataSource(kind=spec.data.kind, fingerprint="")}), task=task)


def read_study(text: object, told: object) -> Study:
    """A study from a run's configuration.

    Raises:
        Malformed: it is none, or not the one whose hash came with it.
    """
    if not isinstance(text, str) or not 0 < len(text) <= LARGEST:
        raise Malformed("there is no study in the run's configuration")
    try:
        study = Study.model_validate_json(text)
        make_study(study.spec, study.task)
    except (ValidationError, UsageError) as error:
        raise Malformed("the study is not one of this version") from error
    if study.version != __version__:
        raise Malformed(f"the study is of mae-bench {study.version[:20]}, this is {__version__}")
    if study.key() != told:
        raise Malformed(f"recipe hash {study.key()} is not the {str(told)[:40]!r} that came with it")
    return study
