"""Pages in a real browser, with everything written down that a page should not do."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


class Watched:
    """A page, the requests it made beyond its own files, its dialogs, its errors and its console's complaints."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.strange: list[str] = []
        page.on("request", self._request)
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.strange.append(f"error: {error}"))
        page.on("console", lambda line: self.strange.append(f"console: {line.text}") if line.type == "error" else None)
        page.on("popup", lambda popup: self.strange.append(f"popup: {popup.url}"))

    def open(self, place: str) -> float:
        """Open a page of the site from the disk. Returns the seconds until it was ready."""
        began = time.perf_counter()
        self.page.goto((self.folder / place).as_uri())
        self.page.wait_for_selector("html[data-ready]")
        return time.perf_counter() - began

    def scroll(self) -> None:
        """Bring every figure into view, so that it is drawn."""
        for figure in self.page.query_selector_all("figure"):
            figure.scroll_into_view_if_needed()
            if figure.query_selector(".plot"):
                figure.wait_for_selector(".plot .main-svg", timeout=30_000)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.folder.as_uri(), "data:", "blob:")):
            self.strange.append(f"request: {request.url}")

    def _dialog(self, dialog: Any) -> None:
        self.strange.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for the tests of a module: starting one takes longer than most of them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        # No sandbox: tests run as root in containers.
        opened = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@contextlib.contextmanager
def watch(chromium: Any, folder: Path, **options: Any) -> Iterator[Watched]:
    """A page of the site in `folder`; options are those of a browser's context: color_scheme, viewport."""
    context = chromium.new_context(**options)
    try:
        yield Watched(context.new_page(), folder)
    finally:
        context.close()
