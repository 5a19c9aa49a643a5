"""Figures as Plotly reads them: plain data, drawn in the page. Each is made only when there is something to see."""

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mae_bench.leaderboard.board import Board, Section
from mae_bench.leaderboard.label import method_of
from mae_bench.leaderboard.ranking import Row
from mae_bench.leaderboard.submission import Submission
from mae_bench.stats.summary import findings_of
from mae_bench.values import digest

Figure = dict[str, Any]
Ranked = Sequence[tuple[Section, Sequence[Row]]]
MOST_LINES = 8
MOST_DOTS, MOST_NUMBERED = 500, 30
MOST_POINTS = 200  # of one distribution: more quantiles look the same


def board_figures(board: Board, ranked: Ranked) -> list[Figure]:
    """The figures of a board."""
    found = [_learning(ranked), _mask_ratio(ranked), _label_share(ranked), _pareto(ranked)]
    return [figure for figure in found if figure]


def record_figures(submission: Submission) -> list[Figure]:
    """The figures of one record."""
    found = [_cases(submission), _curves(submission), _sites(submission)]
    return [figure for figure in found if figure]


def _figure(title: str, about: str, data: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any]) -> Figure:
    return {"title": title, "about": about, "data": data, "layout": {"xaxis": x, "yaxis": y}}


def _plain(text: str) -> str:
    """A text that Plotly shows as it is: it would read tags in it, and make links of some."""
    return html.escape(text, quote=False)


def _line(name: str, x: Sequence[float], y: Sequence[float], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "name": _plain(name), "x": list(x), "y": list(y)} | more


def _with_intervals(name: str, points: list[tuple[float, Row]], **more: Any) -> dict[str, Any]:
    known = [(x, row.score) for x, row in sorted(points, key=lambda point: point[0]) if row.score is not None]
    return _line(
        name,
        [x for x, _ in known],
        [score.value for _, score in known],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [score.high - score.value for _, score in known],
            "arrayminus": [score.value - score.low for _, score in known],
        },
        mode="lines+markers",
        **more,
    )


def _learning(ranked: Ranked) -> Figure | None:
    """Score on the selection cases over fine-tuning steps, mean of the seeds, of the best methods."""
    if not ranked:
        return None
    lines = []
    for row in ranked[0][1][:MOST_LINES]:
        values: dict[int, list[float]] = defaultdict(list)
        for run in row.method.runs.values():
            table = run.curves()
            chosen = table[table["curve"] == "selection"]
            for step, value in zip(chosen["step"], chosen["value"], strict=True):
                values[int(step)].append(float(value))
        if len(values) > 1:
            steps = sorted(values)
            means = [float(np.mean(values[step])) for step in steps]
            lines.append(_line(row.method.label, steps, means, mode="lines+markers"))
    if not lines:
        return None
    about = f"Score on the selection cases, mean of the seeds, of the first {len(lines)} methods of the first table."
    return _figure("Learning curve", about, lines, {"title": "fine-tuning step"}, {"title": "selection score"})


def _mask_ratio(ranked: Ranked) -> Figure | None:
    """Score over the mask ratio, a line for methods that are the same but for it."""
    lines: dict[tuple[str, str], list[tuple[float, Row]]] = defaultdict(list)
    for section, rows in ranked:
        for row in rows:
            spec = row.method.record.spec
            ratio = spec.pretrain.options.get("ratio")
            if isinstance(ratio, int | float) and not isinstance(ratio, bool):
                rest = method_of(spec)
                rest["pretrain"]["options"].pop("ratio")
                lines[section.address, digest(rest)].append((float(ratio), row))
    titles = {section.address: section.title for section, _ in ranked}
    data = [
        _with_intervals(f"{points[0][1].method.record.spec.pretrain.name}, {titles[place]}", points)
        for (place, _), points in lines.items()
        if len({x for x, _ in points}) > 1
    ][:MOST_LINES]
    if not data:
        return None
    return _figure(
        "Mask ratio",
        "Everything else of a line's methods is the same.",
        data,
        {"title": "share of patches that are hidden", "tickformat": ".1%"},
        {"title": ranked[0][0].metric},
    )


def _label_share(ranked: Ranked) -> Figure | None:
    """Score over the share of labels, a line for each method."""
    lines: dict[str, list[tuple[float, Row]]] = defaultdict(list)
    for section, rows in ranked:
        if not section.lane:
            for row in rows:
                lines[row.method.address].append((section.labels, row))
    data = [
        _with_intervals(points[0][1].method.label, points)
        for points in lines.values()
        if len({x for x, _ in points}) > 1
    ][:MOST_LINES]
    if not data:
        return None
    return _figure(
        "Share of the labels",
        "The same method with fewer labels of the same training cases.",
        data,
        {"title": "share of the training labels", "type": "log", "tickformat": "~%"},
        {"title": ranked[0][0].metric},
    )


def _pareto(ranked: Ranked) -> Figure | None:
    """Score against training hours in the first section, by kind of device."""
    groups: dict[str, list[tuple[float, Row]]] = defaultdict(list)
    for row in ranked[0][1] if ranked else ():
        spent = [run.record.cost for run in row.method.runs.values() if run.record.cost]
        if spent and row.score is not None:
            device = "CPU-hours" if spent[0].device.lower().startswith("cpu") else "GPU-hours"
            groups[device].append((sum(cost.wall_s for cost in spent) / len(spent) / 3600, row))
    if sum(map(len, groups.values())) < 2:
        return None
    places = {row.method.address: place for place, row in enumerate(ranked[0][1], 1)}
    data = []
    for device, found in sorted(groups.items()):
        points = sorted(found, key=lambda point: point[0])[:MOST_DOTS]
        # Names would lie over each other: points bear the number of their row, and their name when pointed at.
        names = [f"{places[row.method.address]}. {_plain(row.method.label)}" for _, row in points]
        numbers = [str(places[row.method.address]) for _, row in points]
        mode = "markers+text" if len(points) <= MOST_NUMBERED else "markers"
        shown = {"mode": mode, "textposition": "middle right", "text": numbers, "hovertext": names}
        data.append(_with_intervals(device, points) | shown)
        best = _frontier(points)
        shape = {"mode": "lines", "line": {"shape": "hv", "dash": "dot"}, "hoverinfo": "skip"}
        data.append(_line(f"best for its {device}", [x for x, _ in best], [y for _, y in best], **shape))
    return _figure(
        "Score against cost",
        "Mean training time of a run, pre-training included; devices are not comparable with each other. A point bears "
        "the number of its row in the first table.",
        data,
        {"title": "hours", "type": "log"},
        {"title": ranked[0][0].metric},
    )


def _frontier(points: Sequence[tuple[float, Row]]) -> list[tuple[float, float]]:
    """Of points by rising cost, those that score higher than every cheaper one."""
    found: list[tuple[float, float]] = []
    for cost, row in points:
        if row.score is not None and (not found or row.score.value > found[-1][1]):
            found.append((cost, row.score.value))
    return found


def _cases(submission: Submission) -> Figure | None:
    """How the scores of the test cases are spread."""
    cases, columns = submission.cases, [str(name) for name in submission.cases.columns if name != "case"]
    data = []
    if "dice" in columns:
        chosen = [name for name in columns if name.startswith("dice")]
        data = [_box(name, cases[name].to_numpy(float), list(cases["case"])) for name in chosen]
        title = "Dice"
    elif findings := findings_of(columns):
        title = "score"
        for name in findings[:MOST_LINES]:
            truth, score = (cases[f"{side}/{name}"].to_numpy(float) for side in ("truth", "score"))
            data += [_box(f"{name}: no", score[truth == 0]), _box(f"{name}: yes", score[truth == 1])]
    else:
        title = "risk"
        event = cases["event"].to_numpy(float)
        data = [
            _box(text, cases["risk"].to_numpy(float)[event == kind]) for kind, text in ((1, "event"), (0, "censored"))
        ]
    data = [each for each in data if each["y"]]
    return (
        _figure("Test cases", f"Every point is one of {len(cases)} test cases.", data, {}, {"title": title})
        if data
        else None
    )


def _box(name: str, values: Any, texts: Sequence[str] = ()) -> dict[str, Any]:
    known = np.isfinite(values)
    shown = values[known]
    labels = [_plain(text) for text, there in zip(texts, known, strict=False) if there]
    if len(shown) > MOST_POINTS:
        shown, labels = np.quantile(shown, np.linspace(0, 1, MOST_POINTS)), []
    return {
        "type": "box",
        "name": _plain(name),
        "y": [round(float(value), 6) for value in shown],
        "boxpoints": "all",
        "jitter": 0.5,
        "pointpos": 0,
    } | ({"text": labels} if labels else {})


def _curves(submission: Submission) -> Figure | None:
    if not submission.has(".losses.csv"):
        return None
    table = submission.curves()
    names: Iterable[str] = dict.fromkeys(table["curve"])
    data = []
    for name in names:
        chosen = table[table["curve"] == name]
        more = {"mode": "lines+markers", "yaxis": "y2"} if name == "selection" else {"mode": "lines"}
        data.append(_line(name, chosen["step"].tolist(), chosen["value"].tolist(), **more))
    figure = _figure(
        "Training", "Losses, and the score on the selection cases.", data, {"title": "step"}, {"title": "loss"}
    )
    figure["layout"]["yaxis2"] = {"title": "selection score", "overlaying": "y", "side": "right", "showgrid": False}
    return figure


def _sites(submission: Submission) -> Figure | None:
    """Mean loss of each site over the rounds."""
    if not submission.has(".site_losses.csv"):
        return None
    table = submission.site_curves()
    means = table.groupby(["site", "round"], sort=True)["loss"].mean().reset_index()
    data = []
    for site in list(dict.fromkeys(means["site"]))[:40]:
        chosen = means[means["site"] == site]
        data.append(_line(str(site), chosen["round"].tolist(), chosen["loss"].tolist(), mode="lines+markers"))
    return _figure("Sites", "Mean loss of each site over the rounds.", data, {"title": "round"}, {"title": "loss"})
