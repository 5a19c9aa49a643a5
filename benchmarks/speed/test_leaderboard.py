"""A leaderboard of ten thousand records: built in under a minute; its page opens and sorts in under a second.

`nox -s speed -- -k leaderboard` prints the times. The worst case for the table: two thousand methods on one board, five
seeds each. The page is opened from the disk in Chromium.
"""

import time

import pytest

from mae_bench.leaderboard.build import build
from tests.files.browser import chromium, needs_browser, watch
from tests.files.records import REAL, write_many

__all__ = ["chromium"]  # a fixture
RECORDS, SEEDS = 10_000, 5


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_many(folder, RECORDS, SEEDS)
    return folder


@pytest.fixture(scope="module")
def site(records, tmp_path_factory):
    """The site and the seconds it took."""
    out = tmp_path_factory.mktemp("site") / "out"
    began = time.perf_counter()
    assert build(records, out).records == RECORDS
    return out, time.perf_counter() - began


def test_ten_thousand_records_are_built_in_a_minute(site):
    print(f"\nbuild: {RECORDS} records in {site[1]:.1f} s")
    assert site[1] < 60


@needs_browser
def test_the_page_opens_and_sorts_in_a_second(site, chromium):
    with watch(chromium, site[0]) as watched:
        opened = min(watched.open(f"boards/{REAL}.html") for _ in range(3))
        times = {}
        for head in ("dice", "Method", "Hours"):
            button = watched.page.locator("table.board th", has_text=head).first.locator("button")
            began = time.perf_counter()
            button.click()
            watched.page.wait_for_selector("th[aria-sort]")
            times[head] = time.perf_counter() - began
        print(f"\nopen: {opened:.2f} s; sort by " + ", ".join(f"{head} {spent:.2f} s" for head, spent in times.items()))
        assert watched.strange == []
        assert max(opened, *times.values()) < 1
