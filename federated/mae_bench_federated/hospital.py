"""A hospital's workplace: its own images, found by its own configuration, and a study that it agreed to.

Everything of the run's configuration comes from elsewhere. What is used of it is the study, if its hash is the one
that this hospital pinned; paths are only ever its own.
"""

from pathlib import Path

from flwr.app import Context

from mae_bench.data.source import Data, open_data
from mae_bench.engine import loop, pretrain
from mae_bench.engine.device import make_accelerator
from mae_bench.registry import registry
from mae_bench.store import Store
from mae_bench_federated.build import build_objective, plugin_of
from mae_bench_federated.messages import Malformed
from mae_bench_federated.site import Workplace, sites_of
from mae_bench_federated.study import Study, read_study


def agreed_study(context: Context) -> Study:
    """The study of the run, if it is the one this hospital agreed to.

    Raises:
        Malformed: names both hashes.
    """
    study = read_study(context.run_config.get("study"), context.run_config.get("recipe-hash"))
    pinned = str(context.node_config.get("recipe", ""))
    if study.key() not in pinned.split(","):
        raise Malformed(f"recipe hash {study.key()} is not the one agreed on, {pinned or 'for there is none'}")
    return study


def workplace(context: Context) -> Workplace:
    """What the site of this node trains.

    Raises:
        Malformed: another study, or one that these images do not fit.
        InputError: the images cannot be read.
    """
    study = agreed_study(context)
    federation = study.spec.federation
    assert federation is not None
    site = context.node_config.get("site")
    if not isinstance(site, int) or not 0 <= site < federation.sites:
        raise Malformed(f"this node's `site` is no number from 0 to {federation.sites - 1}")
    store = Store(Path(str(context.node_config.get("store", "mae-bench-store"))))
    folder = context.node_config.get("data")
    data = open_images(study, store, None if folder is None else Path(str(folder)))
    job = pretrain.Job(
        study.spec,
        study.task,
        build_objective(study.spec, study.task, registry()),
        data.prepared,
        data.split.train,
        store.folder("federated", f"{study.key()}-{site}"),
        loop.Setting(make_accelerator()),
    )
    # A stand-in, for trials, is divided as in a simulation.
    own = sites_of(job, data.split.train)[site] if folder is None else data.split.train
    cases = tuple(own if number == site else () for number in range(federation.sites))
    return Workplace(job, cases, secret=True)


def open_images(study: Study, store: Store, folder: Path | None) -> Data:
    """Prepare a hospital's images as the study says; without a folder, the stand-in.

    Raises:
        Malformed: they are prepared by other rules, or have other channels or labels.
        InputError: they cannot be read.
    """
    dataset, options = plugin_of("dataset", study.spec.dataset, registry())
    if folder is None and study.spec.data.kind != "demo":
        raise Malformed("this node's configuration names no `data` folder")
    stand_in = folder is None and not dataset.builtin
    data = open_data(
        dataset, options, store, data=folder, demo=stand_in, protocol=study.spec.protocol.name, skip_bad=True
    )
    ours, theirs = (
        rules.model_dump(mode="json", exclude={"summary"}) for rules in (data.protocol, study.spec.protocol)
    )
    if other := sorted(name for name in ours if ours[name] != theirs.get(name)):
        raise Malformed(
            f"the images would be prepared by other rules than the study's ({', '.join(other)}): another version of "
            "mae-bench, or a study that was made on other images (the stand-in's spacing is not that of patients)"
        )
    if data.task != study.task:
        raise Malformed("the images have other channels or labels than the study's")
    return data
