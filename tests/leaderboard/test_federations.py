"""Federated methods beside what their sites have alone, in the table, in Markdown and on pages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mae_bench.leaderboard.board import make_boards
from mae_bench.leaderboard.build import build
from mae_bench.leaderboard.check import check
from mae_bench.leaderboard.federations import Line, compare_sites, site_scores
from mae_bench.leaderboard.ranking import ranked
from mae_bench.spec import Federation
from tests.files.records import REAL, make_run, write_run

FOLDER = Path(REAL) / "records"
SITES = 3


def told(scores: dict[str, Any], cases: dict[str, Any]) -> dict[str, Any]:
    return {"event": "site scores", "stage": "finetune", "scores": scores, "cases": cases}


def write_sites(root: Path) -> dict[int, list[float]]:
    """Pooled, shared, and each site alone, two seeds each. Returns the mean scores of each site's runs."""
    alone: dict[int, list[float]] = {}
    for seed in (0, 1):
        common = {"seed": seed, "pretrain_seed": seed}
        write_run(root / FOLDER, make_run(common))
        shared = Federation(sites=SITES).model_dump(mode="json")
        event = told(
            {f"site {site}": 0.5 - 0.1 * site - 0.02 * seed for site in range(SITES)},
            {f"site {site}": 2 for site in range(SITES)},
        )
        cost = {
            "wall_s": 1,
            "pretrain_s": 1,
            "samples": 1,
            "peak_memory_mb": 1,
            "device": "cpu",
            "bytes_up": 3_000_000,
            "bytes_down": 6_000_000,
        }
        write_run(root / FOLDER, make_run(common | {"federation": shared}, shift=0.1, events=[event], cost=cost))
        for site in range(SITES):
            run = make_run(common | {"federation": shared | {"only": site}}, shift=0.04 * site)
            alone.setdefault(site, []).append(float(run[1]["dice"].mean()))
            write_run(root / FOLDER, run)
    return alone


def lines_of(root: Path) -> list[Line]:
    found = check(root, intervals=False)
    assert not found.problems
    (board,) = make_boards(found.submissions)
    (section,) = board.sections
    return compare_sites(ranked(section), section.metric)


def test_shared_beside_the_mean_and_the_best_site_alone(tmp_path: Path) -> None:
    alone = write_sites(tmp_path)
    shared, mean, best = lines_of(tmp_path)
    assert shared.worst == pytest.approx(0.29)
    assert (shared.up, shared.down) == (3_000_000, 6_000_000)
    assert mean.score is not None
    assert mean.score.value == pytest.approx(np.mean(list(alone.values())))
    assert mean.score.low < mean.score.value < mean.score.high
    assert best.score is not None
    assert best.score.value == pytest.approx(max(map(np.mean, alone.values())))
    assert "site 2" in best.label
    assert (mean.worst, mean.up) == (None, None)


def test_sites_of_which_some_are_missing_say_so(tmp_path: Path) -> None:
    shared = Federation(sites=SITES, partition="dirichlet").model_dump(mode="json")
    for site in (0, 2):
        write_run(tmp_path / FOLDER, make_run({"federation": shared | {"only": site}}, shift=0.1 * site))
    mean, best = lines_of(tmp_path)
    assert mean.label == "mae, 2 of 3 sites, each alone, dirichlet 0.3: their mean"
    assert "site 2" in best.label


def test_boards_without_sites_have_no_such_table(tmp_path: Path) -> None:
    write_run(tmp_path / "in" / FOLDER, make_run())
    assert lines_of(tmp_path / "in") == []
    build(tmp_path / "in", tmp_path / "out")
    assert "What sharing gains" not in (tmp_path / "out" / "boards" / f"{REAL}.html").read_text()


def test_on_pages(tmp_path: Path) -> None:
    write_sites(tmp_path / "in")
    build(tmp_path / "in", tmp_path / "out")
    for name in (f"{REAL}.html", f"{REAL}.md"):
        text = (tmp_path / "out" / "boards" / name).read_text()
        assert "What sharing gains" in text
        assert "3 of 3 sites, each alone" in text
        assert "0.2900" in text
    pages = [path.read_text() for path in (tmp_path / "out" / "records").glob("*.html")]
    assert sum("selection cases of each site" in page for page in pages) == 2


@pytest.mark.parametrize(
    "event",
    [
        {"event": "site scores"},
        told([1], {"a": 1}),  # type: ignore[arg-type]
        told({"a": "<script>"}, {"a": 1}),
        told({"a": 0.5}, {"a": "many"}),
        told({"a": 0.5}, {}),
        told({"a": True}, {"a": True}),
    ],
)
def test_what_cannot_be_read_is_not_shown(tmp_path: Path, event: dict[str, Any]) -> None:
    """Events are a stranger's words."""
    assert site_scores(make_run(events=[event])[0]) == []
