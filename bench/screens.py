"""Pictures of every page of the browser, for a person to look at: wide and narrow, light and dark.

    python -m bench.screens --out /tmp/screens                trains two short demo runs first, so that no page is empty
    python -m bench.screens --out /tmp/screens --here DIR     over a folder that has ``runs`` already

Needs Debian's Chromium and playwright (requirements-dev.txt). The app is started as users start it. A page that reports a
fault of its scripts, or is wider than the window, is named and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.pages import PAGES
from tests.app.serving import PATIENCE, Server
from tests.app.walk.user import browser
from trainer.presets import ROOT

WIDTHS = (1280, 390)
LOOKS = ("light", "dark")
DEMOS = ("pocket-lora", "pocket-loha")
STEPS = 30
SETTLED_SECONDS = 4.0
"""Answers of the server, charts and pictures have come by then; a page of gradio never falls silent by itself."""


def train(folder: Path) -> None:
    """Two short runs, so that there is something to look at and to compare."""
    for demo in DEMOS:
        command = [sys.executable, "-m", "trainer", "--preset", demo, "--output", str(folder / "runs")]
        for setting in (f"train.steps={STEPS}", f"preview.every={STEPS // 2}", f"checkpoint.every={STEPS // 2}"):
            command += ["--set", setting]
        subprocess.run(command, cwd=ROOT, check=True)


def shoot(chromium: Any, address: str, out: Path) -> list[str]:
    """Every page in every width and look; returns what is wrong with them."""
    faults = []
    for width in WIDTHS:
        for look in LOOKS:
            tab = chromium.new_page(viewport={"width": width, "height": 900})
            for page in PAGES:
                name = f"{page.key}-{width}-{look}"
                faults += [
                    f"{name}: {fault}" for fault in shot(tab, f"{address}/{page.path}?__theme={look}", out / f"{name}.png")
                ]
            tab.close()
    return faults


def shot(tab: Any, address: str, file: Path) -> list[str]:
    """One picture of the whole page; returns what is wrong with the page."""
    faults: list[str] = []

    def note(error: Any) -> None:
        faults.append(str(error))

    tab.on("pageerror", note)
    tab.goto(address, wait_until="load")
    tab.locator("nav.pages").first.wait_for(state="visible", timeout=PATIENCE * 1000)
    tab.wait_for_timeout(SETTLED_SECONDS * 1000)
    over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    tab.screenshot(path=str(file), full_page=True)
    tab.remove_listener("pageerror", note)
    return faults + [f"{over} pixels wider than the window"] * (over > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--here", type=Path)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    here = options.here or Path(tempfile.mkdtemp())
    try:
        if options.here is None:
            train(here)
        server = Server(here)
        try:
            with browser() as chromium:
                faults = shoot(chromium, server.address, options.out)
        finally:
            server.stop()
    finally:
        if options.here is None:
            shutil.rmtree(here)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
