"""The difference of every method to two reference rows: training from scratch, and the best of its section."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mae_bench.leaderboard.board import Board, Method, Section
from mae_bench.leaderboard.ranking import mean_score
from mae_bench.standings import lower_is_better, method_table, paired_table
from mae_bench.stats.mixed import Test, difference_test

MOST = 200  # methods of one section that are compared, the best; with one seed and a thousand cases each takes a second


@dataclass(frozen=True)
class Difference:
    """A method less a reference, on the seeds and cases that both have. role: scratch or best."""

    board: str
    section: str
    method: str
    role: str
    reference: str
    metric: str
    test: Test

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "board": self.board,
            "section": self.section,
            "method": self.method,
            "role": self.role,
            "reference": self.reference,
            "metric": self.metric,
            "difference": self.test.difference._asdict(),
            "p": self.test.p,
        }


def differences(board: Board, section: Section) -> Iterator[Difference]:
    """The differences in one section; none where two methods share no seed or fewer than two cases."""
    sign = -1 if lower_is_better(section.metric) else 1
    means = {method.address: mean_score(method, section.metric) for method in section.methods}
    scored = [method for method in section.methods if np.isfinite(means[method.address])]
    order = sorted(scored, key=lambda each: -sign * means[each.address])[:MOST]
    tables = {
        method.address: method_table({seed: run.cases for seed, run in method.runs.items()}, section.metric)
        for method in order
    }
    for method in order:
        for role, reference in (("scratch", _scratch(method, order)), ("best", _best(method, order))):
            if reference is None:
                continue
            table = paired_table(tables[method.address], tables[reference.address])
            if table.size and table.shape[1] > 1:
                yield Difference(
                    board.name.slug,
                    section.title,
                    method.label,
                    role,
                    reference.label,
                    section.metric,
                    difference_test(table),
                )


def _scratch(method: Method, order: list[Method]) -> Method | None:
    """Scratch with the same backbone and head if there is one, else the best one; not for scratch itself."""
    others = [each for each in order if each.record.spec.pretrain.name == "scratch"]
    if method in others:
        return None
    spec = method.record.spec
    like = [each for each in others if (each.record.spec.backbone, each.record.spec.head) == (spec.backbone, spec.head)]
    return next(iter([*like, *others]), None)


def _best(method: Method, order: list[Method]) -> Method | None:
    """The best of the others."""
    return next((each for each in order if each is not method), None)
