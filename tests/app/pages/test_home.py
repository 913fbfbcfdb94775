"""The first page: cards of runs, with text of others as text, and the demo."""

from __future__ import annotations

from app.pages import home
from app.studio import Studio
from app.watch import View
from trainer import presets


def test_a_card_shows_picture_name_state_and_leads_to_the_run(tmp_path):
    text = home.card("a b&c", View("running", step=3, steps=9, previews=(tmp_path / "x y.png",)))
    assert "href='./train?run=a%20b%26c'" in text and "a b&amp;c</a>" in text
    assert "Training" in text and "step 3 of 9" in text and "x%20y.png" in text


def test_text_from_elsewhere_is_escaped():
    assert "<script>" not in home.card("<script>", View("failed", "<script>")) + home.device_line("<script>")


def test_the_demo_goes_into_the_queue(tmp_path):
    studio = Studio(tmp_path)
    assert home.begin(studio) == home.DEMO and home.begin(studio) == f"{home.DEMO}-2"
    assert [job.name for job in studio.queue.waiting()] == [home.DEMO, f"{home.DEMO}-2"]
    recipe = studio.state / "recipes" / f"{home.DEMO}.toml"
    assert presets.load(str(recipe))["adapter"] == presets.load(home.DEMO)["adapter"]
    assert "Waiting for its turn" in home.recent_runs(studio)
