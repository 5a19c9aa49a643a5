"""The site in Chromium, opened from the disk: it sorts, filters, is used by keyboard, fits a phone, has a dark mode."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mae_bench.leaderboard.build import build
from tests.files.browser import Watched, chromium, needs_browser, watch
from tests.files.records import REAL, make_run, write_curves, write_many, write_run
from tests.leaderboard.test_build import SCRATCH

pytestmark = needs_browser
__all__ = ["chromium"]  # a fixture
BOARD = f"boards/{REAL}.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 methods, so that they do not fit on a page of the table; and a federated one."""
    root = tmp_path_factory.mktemp("site")
    folder = root / "in" / REAL / "records"
    for seed in (0, 1):
        common = {"seed": seed, "pretrain_seed": seed}
        write_run(folder, make_run(common | SCRATCH, intervals=False))
        run = make_run(common | {"federation": {"sites": 2, "only": None}}, shift=0.3, intervals=False)
        write_run(folder, run)
        write_curves(folder, run[0].key, sites=True)
        for number in range(148):
            write_run(
                folder,
                make_run(
                    common | {"pretrain.options": {"ratio": round(0.1 + number / 200, 4)}},
                    shift=number / 1000,
                    intervals=False,
                ),
            )
    published = root / "in" / "published"
    published.mkdir()
    good = (
        'dataset = "brats"\ntitle = "Literature"\n[[groups]]\ntitle = "Elsewhere"\nprotocol = "theirs"\nnumbers = ['
        '{ method = "UNETR", metric = "Dice, %", value = 78.9, verified = "read", source = "abstract" },'
        '{ method = "Other", metric = "Dice, %", verified = "unverified", source = "paper" }]\n'
    )
    (published / "brats.toml").write_text(good)
    build(root / "in", root / "out")
    return root / "out"


@pytest.fixture
def page(chromium: Any, site: Path) -> Iterator[Watched]:
    with watch(chromium, site) as watched:
        yield watched
        assert watched.strange == []


def column(watched: Watched, number: int) -> list[str]:
    return [
        cell.inner_text().strip()
        for cell in watched.page.query_selector_all(f"table.board tbody td:nth-child({number})")
    ]


def test_a_table_sorts_by_its_heads(page: Watched) -> None:
    page.open(BOARD)
    scores = [float(text) for text in column(page, 3)]
    assert len(scores) == 100
    assert scores == sorted(scores, reverse=True)
    head = page.page.get_by_role("columnheader", name="dice")
    head.get_by_role("button").click()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    scores = [float(text) for text in column(page, 3)]
    assert scores == sorted(scores)
    page.page.locator("table.board").get_by_role("columnheader", name="Method").get_by_role("button").click()
    labels = column(page, 2)
    assert labels == sorted(labels)
    assert head.get_attribute("aria-sort") is None


def test_it_filters_and_turns_pages(page: Watched) -> None:
    page.open(BOARD)
    status = page.page.locator(".pages [role=status]")
    assert status.inner_text() == "1 to 100 of 150 methods"
    page.page.get_by_role("button", name="Next").click()
    assert status.inner_text() == "101 to 150 of 150 methods"
    page.page.get_by_label("Filter").fill("scratch")
    assert column(page, 2) == ["scratch"]
    page.page.get_by_label("Filter").fill("no such method")
    assert column(page, 2) == []
    page.page.get_by_label("Filter").fill("")
    page.page.get_by_role("combobox", name="Pre-training").select_option("scratch")
    assert column(page, 6) == ["scratch"]


def test_ties_at_the_top_are_marked_in_words(page: Watched) -> None:
    page.open(BOARD)
    first = page.page.locator("table.board tbody tr").first
    assert "top" in first.inner_text()
    assert "tied" in (first.get_attribute("class") or "")
    assert re.match(r"1(–\d+)? top", column(page, 1)[0])


def test_everything_can_be_reached_by_keyboard(page: Watched) -> None:
    page.open(BOARD)
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.className") == "skip"
    page.page.keyboard.press("Enter")
    assert page.page.evaluate("document.activeElement.id") == "main"
    seen = []
    for _ in range(60):
        page.page.keyboard.press("Tab")
        seen.append(page.page.evaluate("document.activeElement.textContent.trim() || document.activeElement.tagName"))
        if seen[-1] == "Method":
            break
    assert seen[-1] == "Method"
    assert "INPUT" in seen
    outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.page.keyboard.press("Enter")
    assert (
        page.page.locator("table.board").get_by_role("columnheader", name="Method").get_attribute("aria-sort")
        == "ascending"
    )
    page.page.keyboard.press("Space")
    assert (
        page.page.locator("table.board").get_by_role("columnheader", name="Method").get_attribute("aria-sort")
        == "descending"
    )


def test_figures_are_drawn(page: Watched) -> None:
    page.open(BOARD)
    page.scroll()
    titles = page.page.locator("figcaption strong").all_inner_texts()
    assert titles == ["Learning curve.", "Mask ratio.", "Score against cost."]


def test_a_record_has_its_evidence_and_its_command(page: Watched, site: Path) -> None:
    page.open(BOARD)
    page.page.get_by_label("Filter").fill("sites")
    page.page.get_by_role("link", name="seed 1").click()
    page.page.wait_for_selector("html[data-ready]")
    page.scroll()
    assert page.page.locator("figcaption strong").all_inner_texts() == ["Test cases.", "Training.", "Sites."]
    command = page.page.locator(".command pre").inner_text()
    assert command.startswith("mae-bench run --dataset brats")
    assert "--set federation.sites=2" in command
    page.page.get_by_text("Specification").click()
    assert '"strategy": "fedavg"' in page.page.locator("details pre").first.inner_text()
    page.page.get_by_role("button", name="Copy").click()
    page.page.get_by_role("link", name="brats, clean-v1").click()
    page.page.wait_for_selector("html[data-ready]")


def test_published_numbers_stand_apart(page: Watched) -> None:
    page.open(BOARD)
    literature = page.page.locator("section.literature")
    assert "never ranked" in literature.inner_text()
    cells = literature.locator("table.published tbody tr").all_inner_texts()
    assert "78.9" in cells[0]
    assert "unverified" in cells[1]
    assert "UNETR" not in " ".join(column(page, 2))


def test_it_fits_a_phone(chromium: Any, site: Path) -> None:
    with watch(chromium, site, viewport={"width": 360, "height": 740}, has_touch=True) as phone:
        for place in (BOARD, "index.html", f"records/{next((site / 'records').glob('*.html')).name}"):
            phone.open(place)
            phone.scroll()
            assert phone.page.evaluate("document.documentElement.scrollWidth") <= 360
        phone.open(BOARD)
        assert not phone.page.locator("td.detail").first.is_visible()
        phone.page.get_by_role("button", name="All columns").tap()
        assert phone.page.locator("td.detail").first.is_visible()
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert phone.strange == []


LUMINANCE = """name => {
  const parts = getComputedStyle(document.body)[name].match(/[0-9.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_modes_can_be_read(chromium: Any, site: Path, scheme: str) -> None:
    """Contrast of text as WCAG 2 has it: at least 7 to 1; and the figures follow."""
    with watch(chromium, site, color_scheme=scheme) as watched:
        watched.open(BOARD)
        paper, ink = (watched.page.evaluate(LUMINANCE, name) for name in ("backgroundColor", "color"))
        assert (paper < ink) is (scheme == "dark")
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 7
        watched.scroll()
        colour = watched.page.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
        assert colour == watched.page.evaluate("getComputedStyle(document.body).color")


def test_without_scripts_there_is_a_table(chromium: Any, site: Path) -> None:
    with watch(chromium, site, java_script_enabled=False) as watched:
        watched.page.goto((site / BOARD).as_uri())
        assert watched.page.locator("table.board tbody tr").count() == 100


@pytest.mark.slow
def test_ten_thousand_records_make_a_site_that_opens_and_sorts(chromium: Any, tmp_path: Path) -> None:
    """Two thousand methods on one board. How long it takes is told here and judged in benchmarks/speed."""
    write_many(tmp_path / "in", 10_000, 5)
    began = time.perf_counter()
    assert build(tmp_path / "in", tmp_path / "out").records == 10_000
    built = time.perf_counter() - began
    with watch(chromium, tmp_path / "out") as watched:
        opened = watched.open(BOARD)
        assert watched.page.locator(".pages [role=status]").inner_text() == "1 to 100 of 2000 methods"
        began = time.perf_counter()
        watched.page.locator("table.board th").nth(2).get_by_role("button").click()
        watched.page.locator("table.board th").nth(2).get_by_role("button").click()
        assert [float(text) for text in column(watched, 3)] == sorted(float(text) for text in column(watched, 3))
        print(f"build {built:.1f} s, open {opened:.2f} s, sort twice and read {time.perf_counter() - began:.2f} s")
        assert watched.strange == []
