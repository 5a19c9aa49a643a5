"""The command on a record's page runs that record: it resolves to the specification it was made from."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from mae_bench.cli.run import parse_flags, parse_settings
from mae_bench.data.source import open_data
from mae_bench.leaderboard.command import command_of
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.run import Cell, make_cell
from mae_bench.store import Store

OWN = (
    "--dataset",
    "--pretrain",
    "--backbone",
    "--head",
    "--recipe",
    "--protocol",
    "--labels",
    "--seed",
    "--pretrain-seed",
)


def cell_of(words: list[str], store: Store) -> Cell:
    """What `mae-bench run` makes of its words, up to the point where it would train."""
    given: dict[str, Any] = {}
    settings, flags = [], []
    rest = list(words[2:])
    while rest:
        word = rest.pop(0)
        if word == "--demo":
            given["--demo"] = True
        elif word == "--set":
            settings.append(rest.pop(0))
        elif word in OWN:
            given[word] = rest.pop(0)
        else:
            flags.append(word)
    demo = given.get("--demo", False)
    request = Request(
        given["--dataset"], given["--pretrain"], given.get("--backbone", "vit"), given.get("--head"),
        given.get("--recipe"), demo, parse_flags(flags), parse_settings(settings),
    )  # fmt: skip
    chosen = resolve(request, registry())
    opened = open_data(
        chosen.plugin("dataset"), chosen.options["dataset"], store, data=None, demo=demo,
        protocol=given.get("--protocol"), skip_bad=False, stage=lambda name: lambda done, total: None,
    )  # fmt: skip
    return make_cell(
        chosen, opened, labels=float(given.get("--labels", 1)), seed=int(given.get("--seed", 0)),
        pretrain_seed=int(given.get("--pretrain-seed", 0)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("store")))


SMALL = "--set dataset.subjects=6 --set dataset.spacing=6 --recipe smoke"


@pytest.mark.parametrize(
    "asked",
    [
        f"--dataset mni152 --pretrain mae {SMALL}",
        f"--dataset mni152 --pretrain mae {SMALL} --ratio 0.5 --labels 0.5 --seed 3 --pretrain-seed 4 --head linear",
        f"--dataset mni152 --pretrain scratch {SMALL} --set finetune.epochs=7 --set recipe.roi=[16,16,16]",
        f"--dataset mni152 --pretrain moco --backbone resnet18 --head linear {SMALL}",
        f"--dataset mni152 --pretrain mae {SMALL} --sites 3 --strategy fedprox --mu 0.1 --local-steps 2 --rounds 2",
        f"--dataset mni152 --pretrain mae {SMALL} --sites 3 --only 1 --partition dirichlet",
    ],
)
def test_the_command_has_the_key_of_its_record(store: Store, asked: str) -> None:
    spec = cell_of(["mae-bench", "run", *shlex.split(asked)], store).spec
    again = cell_of(command_of(spec), store).spec
    assert again == spec
    assert again.key() == spec.key()
