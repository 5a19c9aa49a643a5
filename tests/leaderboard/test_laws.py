"""What a record must keep, each law with a record that breaks it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mae_bench.leaderboard.check import check
from tests.files.records import CASES, DEMO, IDENTITIES, REAL, SPLIT, csv_of, make_run, write_curves, write_run


def faults(root: Path) -> str:
    return "\n".join(check(root).problems)


def damage(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the document of a record, leaving everything else as it is."""
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(("kind", "board"), [("real", REAL), ("demo", DEMO)])
def test_a_good_record_passes(tmp_path: Path, kind: str, board: str) -> None:
    run = make_run(kind=kind)
    write_run(tmp_path / board / "records", run)
    write_curves(tmp_path / board / "records", run[0].key, sites=True)
    found = check(tmp_path)
    assert (found.problems, found.notes, len(found.submissions)) == ((), (), 1)


@pytest.mark.parametrize(("kind", "board"), [("demo", REAL), ("demo", "brats"), ("real", DEMO), ("real", "demo")])
def test_demo_records_and_real_ones_never_meet(tmp_path: Path, kind: str, board: str) -> None:
    write_run(tmp_path / board / "records", make_run(kind=kind))
    assert "data.kind" in faults(tmp_path)


def edit_metric(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["metrics"][name].update(values)


def set_at(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return edit


PERFECT = {"value": 1.0, "low": 1.0, "high": 1.0, "unit": "1"}
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another schema": (set_at("schema", value=2), "schema"),
    "a field of its own": (set_at("score", value=1.0), "score: Extra"),
    "a key of something else": (set_at("spec", "seed", value=7), "key: "),
    "a better score": (edit_metric("dice", value=0.9), "metrics.dice: 0.9, but the per-case scores give"),
    "a narrower interval": (edit_metric("dice", low=0.51, high=0.53), "metrics.dice: interval"),
    "an interval beside its score": (edit_metric("dice", low=0.7, high=0.8), "lies outside its interval"),
    "no identities": (set_at("data", "identities", value={}), "data.identities"),
    "a plugin from nowhere": (set_at("plugins", "mae", value={}), "plugins.mae.dist"),
    "another unit": (edit_metric("hd95", unit="cm"), "metrics.hd95.unit"),
    "a score that the cases do not give": (set_at("metrics", "iou", value=PERFECT), "metrics: not"),
    "no main metric": (set_at("main_metric", value="iou"), "main_metric"),
    "a distance for a main metric": (set_at("main_metric", value="hd95"), "main_metric: hd95 does not lead"),
    "a failed run": (set_at("status", value="failed"), "status: failed"),
    "scores of another file": (set_at("cases", "sha256", value="0" * 64), "SHA-256"),
    "a path to another file": (set_at("cases", "file", value="../../../etc/passwd"), "names another file"),
    "other images": (set_at("data", "fingerprint", value="beef"), "data.fingerprint"),
    "another kind": (set_at("data", "kind", value="demo"), "data.kind"),
    "another split": (set_at("data", "split", value={**SPLIT, "val": ["val_0"]}), "data.split: not the one"),
    "more cases left out": (set_at("data", "skipped", value={"x": "torn"}), "data.skipped"),
    "labels of test cases": (set_at("data", "labelled", value=[CASES[0]]), "data.labelled"),
    "identities of other cases": (set_at("data", "identities", value={"x": IDENTITIES[CASES[0]]}), "data.identities"),
    "a protocol before the first": (set_at("spec", "protocol", "version", value=0), "spec.protocol.version"),
    "a name that leads elsewhere": (set_at("spec", "dataset", "name", value="../brats"), "spec.dataset.name"),
    "an option that is no name": (set_at("spec", "pretrain", "options", value={"a b;rm": 1}), "spec.pretrain.options"),
    "a number that is too large": (set_at("cost", "wall_s", value=1e300), "too large"),
    "a long text": (set_at("reason", value="x" * 20_000), "a text of 20000 characters"),
    "a hidden turn of the writing": (set_at("reason", value="\u202egnp.exe"), "U+202E"),
    "a control character": (set_at("reason", value="\u001b[2J"), "U+001B"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_law_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    edit, words = BROKEN[name]
    path = write_run(tmp_path / REAL / "records", make_run())
    damage(path, edit)
    found = faults(tmp_path)
    assert words in found
    assert path.stem in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"[]", "valid dict"), (b"\xff\xfe", "not UTF-8"),
        (b"null", "valid dict"),
        (b'{"schema": 1, "schema": 1}', "given twice"), (b'{"a": NaN}', "NaN"), (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"), (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested"), (b"[" * 100_000, "nested"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    folder = tmp_path / REAL / "records"
    folder.mkdir(parents=True)
    (folder / f"{'a' * 20}.json").write_bytes(text)
    assert words in faults(tmp_path)


def replace_cases(folder: Path, edit: Callable[[pd.DataFrame], Any], text: bytes | None = None) -> None:
    """A record whose scores are others, with the hash of the file as it is then."""
    record, table = make_run()
    changed = edit(table.copy())
    text = csv_of(changed) if text is None else text
    path = write_run(folder, (record, table))
    path.with_suffix(".cases.csv").write_bytes(text)
    damage(path, set_at("cases", "sha256", value=hashlib.sha256(text).hexdigest()))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda table: table.iloc[:-1], "not the test cases"),
        (lambda table: table.iloc[::-1], "not the test cases"),
        (lambda table: table.drop(columns="case"), "first column"),
        (lambda table: table.rename(columns={"dice": "iou"}), "columns are those of no task"),
        (lambda table: table.assign(dice=table["dice"] + 1), "out of range"),
        (lambda table: table.assign(hd95=-table["hd95"]), "out of range"),
        (lambda table: table.assign(dice=table["dice"].where(table["dice"] > 0.4)), "cases without a score"),
        (lambda table: table.assign(hd95=float("inf")), "too large"),
        (lambda table: table.assign(hd95=1e200), "too large"),
        (lambda table: table.assign(hd95="far"), "could not convert"),
        (lambda table: table.assign(dice=table["dice"] * 0.9), "metrics.dice"),
        (lambda table: pd.concat([table, table], axis=1), "twice"),
    ],
)
def test_scores_that_do_not_fit_are_refused(tmp_path: Path, edit: Any, words: str) -> None:
    replace_cases(tmp_path / REAL / "records", edit)
    assert words in faults(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"case\n", b"\x00\xff", b'case,dice\n"a,1\n', b"case,dice\na,1,2\n", b"case,dice\r\n\r\n"]
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, text: bytes) -> None:
    replace_cases(tmp_path / REAL / "records", lambda table: table, text)
    assert ".cases.csv" in faults(tmp_path)


def test_scores_that_are_missing_are_missed(tmp_path: Path) -> None:
    path = write_run(tmp_path / REAL / "records", make_run())
    path.with_suffix(".cases.csv").unlink()
    assert ".cases.csv: missing" in faults(tmp_path)


def test_only_plain_files_of_records_are_read(tmp_path: Path) -> None:
    folder = tmp_path / REAL / "records"
    path = write_run(folder, make_run())
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for name, words in {
        f"{'b' * 20}.json": "not a plain file", f"{path.stem}.overlays.png": "not a plain file",
    }.items():  # fmt: skip
        (folder / name).symlink_to(secret)
        assert f"{name}: {words}" in faults(tmp_path)
        (folder / name).unlink()
    for name in ("index.html", f"{path.stem}.svg", f"{path.stem}.json.bak", "notes.txt", ".hidden"):
        (folder / name).write_text("<script>")
        assert f"{name}: no file of a record" in faults(tmp_path)
        (folder / name).unlink()
    (folder / f"{'c' * 20}.cases.csv").write_text("case\n")
    assert "there is no record" in faults(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".overlays.png", b"<svg onload=alert(1)>"),
        (".overlays.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (100_000).to_bytes(4, "big") * 2),
        (".losses.csv", b"curve,step,value\npretrain,1,NaN\n"),
        (".losses.csv", b"curve,step\npretrain,1\n"),
        (".losses.csv", b"curve,step,value\npretrain,1,1e300\n"),
        (".site_losses.csv", b"round,site,loss\n1,a,2\n"),
        (".losses.csv", b"curve,step,value\n" + b"pretrain,1,1\n" * 100_000),
    ],
)
def test_what_lies_beside_a_record_is_checked(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = write_run(tmp_path / REAL / "records", make_run())
    path.with_suffix(suffix).write_bytes(data)
    assert f"{path.stem}{suffix}: " in faults(tmp_path)


def test_findings_and_outcomes_are_made_again_too(tmp_path: Path) -> None:
    yes = [1.0, 0.0] * 6
    findings = pd.DataFrame({"case": CASES, "truth/a": yes, "score/a": [0.1 * i % 1 for i in range(12)]})
    outcomes = pd.DataFrame({"case": CASES, "time": range(1, 13), "event": yes, "risk": range(12, 0, -1)}).astype(
        {"time": float, "risk": float}
    )
    for table, metric in ((findings, "auc"), (outcomes, "concordance")):
        folder = tmp_path / metric / "records"
        path = write_run(folder, make_run(cases=table))
        assert not check(tmp_path / metric).problems
        damage(path, edit_metric(metric, value=0.987))
        assert f"metrics.{metric}: 0.987" in faults(tmp_path / metric)


def test_a_specification_of_an_earlier_version_is_superseded(tmp_path: Path) -> None:
    """A field that the specification has got since: the key it was written under is that of the file's own words."""
    record, table = make_run()
    document = record.to_json()
    del document["spec"]["start"]
    from mae_bench.values import digest

    words = json.loads(json.dumps(document["spec"]))
    for place in ("protocol", "recipe"):
        del words[place]["summary"]
    key = digest(words)
    document |= {"key": key, "cases": {**document["cases"], "file": f"{key}.cases.csv"}}
    folder = tmp_path / REAL / "records"
    folder.mkdir(parents=True)
    (folder / f"{key}.json").write_text(json.dumps(document))
    (folder / f"{key}.cases.csv").write_bytes(csv_of(table))
    assert "key: superseded: specifications have fields now that this one lacks" in faults(tmp_path)
