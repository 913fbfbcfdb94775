"""A person at the page, in Debian's Chromium: acts as people do, each act is counted, and looking is free."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 600_000
"""Milliseconds: training goes on while the user waits."""


class User:
    """One tab. ``actions`` counts what was done in it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address, self.actions = page, address, 0
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path: str = "") -> None:
        """Type an address; not an action of the walk, as every page has links to all others."""
        self.page.goto(f"{self.address}/{path}", wait_until="load")

    def click(self, what: str) -> None:
        """Click what a selector names; waits until it can be clicked."""
        self.page.locator(what).first.click()
        self.actions += 1

    def press(self, button: str) -> None:
        """Click the button or link with these words."""
        self.page.locator("button, a").get_by_text(button, exact=True).or_(
            self.page.get_by_role("link", name=button, exact=True)
        ).first.click()
        self.actions += 1

    def write(self, where: str, text: str) -> None:
        """Put text into a field, in place of what is in it, and leave the field."""
        field = self.page.locator(f"{where} textarea, {where} input").first
        field.fill(text)
        field.press("Tab")
        self.actions += 1

    def drop(self, where: str, files: Sequence[Path]) -> None:
        """Give files to an upload."""
        self.page.locator(f"{where} input[type=file]").first.set_input_files([str(file) for file in files])
        self.actions += 1

    def choose(self, where: str, option: str) -> None:
        """Choose from a list that opens, by typing the beginning."""
        self.page.locator(f"{where} input").first.fill(option)
        self.page.get_by_role("option", name=option, exact=True).first.click()
        self.actions += 1

    def download(self, what: str, into: Path) -> Path:
        """Press a download and wait for the file."""
        with self.page.expect_download() as started:
            self.click(what)
        file = into / started.value.suggested_filename
        started.value.save_as(file)
        return file

    def sees(self, text: str, where: str = "body") -> None:
        """Wait until some text is shown somewhere."""
        script = "([where, text]) => [...document.querySelectorAll(where)].some((each) => each.innerText.includes(text))"
        self.page.wait_for_function(script, arg=[where, text])

    def waits(self, what: str) -> None:
        """Wait until what a selector names is shown."""
        self.page.locator(what).first.wait_for(state="visible")

    def gone(self, what: str) -> None:
        """Wait until what a selector names is not shown any more."""
        self.page.wait_for_function("(what) => !document.querySelector(what)", arg=what)

    def text(self, where: str = "body") -> str:
        """What is written somewhere."""
        return str(self.page.locator(where).first.inner_text())

    def draws(self, count: int, where: str) -> None:
        """Wait until so many pictures are there and really drawn."""
        script = (
            "([where, count]) => [...document.querySelectorAll(`${where} img`)]"
            ".filter((each) => each.complete && each.naturalWidth > 0).length >= count"
        )
        self.page.wait_for_function(script, arg=[where, count])


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        started = engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield started
        finally:
            started.close()
