"""The recipe page: changes are taken, told, taken back; what is wrong is said; two tabs do not undo each other."""

from __future__ import annotations

import gradio as gr
import pytest

from app.pages.recipe import RecipePage, change_line
from app.parts import form
from app.parts.algorithms import HARD
from app.studio import Studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("runs"))
    yield studio
    studio.close()


@pytest.fixture
def page(studio):
    studio.draft.begin(studio.desk.ask("preset", "pocket-lora"), "pocket-lora")
    with gr.Blocks() as site:
        return RecipePage(studio, site)


class Tab:
    """A browser's tab: holds the values that it was sent."""

    def __init__(self, page: RecipePage) -> None:
        self.page, self.search = page, ""
        self.take(page.show(""))

    def take(self, updates: list) -> None:
        *_, self.seen, self.told = updates
        first = len(self.told) - len(self.page.rows)
        self.values = [update["value"] for update in self.told[first:]]
        self.visible = {row["path"] for row, update in zip(self.page.rows, self.told[first:], strict=True) if update["visible"]}

    def set(self, path: str, value: object) -> None:
        place = next(number for number, row in enumerate(self.page.rows) if row["path"] == path)
        values = [*self.values[:place], value, *self.values[place + 1 :]]
        self.take(self.page.edit(self.search, self.seen, self.told, *values))

    def get(self, path: str) -> object:
        return self.values[next(number for number, row in enumerate(self.page.rows) if row["path"] == path)]

    @property
    def verdict(self) -> str:
        return self.told[1]["value"]

    @property
    def changed(self) -> list[str]:
        return self.told[3]["value"]


def test_a_change_is_marked_and_can_be_taken_back(page):
    tab = Tab(page)
    assert tab.changed == [] and tab.get("train.steps") == 220
    tab.set("train.steps", 30)
    assert tab.changed == ["train.steps"] and "steps = 30" in tab.told[4]["value"]
    tab.take(page.reset([], ""))
    assert tab.changed == [] and tab.get("train.steps") == 220


def test_what_is_wrong_is_said_and_nothing_can_be_started(page):
    tab = Tab(page)
    tab.set("train.steps", -3)
    assert "train.steps = -3" in tab.verdict and not tab.told[2]["interactive"]
    assert page.studio.start_draft() == "" and page.studio.queue.jobs() == []
    tab.set("train.steps", 30)
    assert "can run" in tab.verdict and tab.told[2]["interactive"]


def test_a_recipe_without_pictures_or_base_says_so_and_cannot_be_started(page):
    page.studio.draft.begin(page.studio.desk.ask("preset", "sd15-lora"), "sd15-lora")
    tab = Tab(page)
    assert "No base model" in tab.verdict and "No pictures" in tab.verdict and "can run" not in tab.verdict
    assert "href='./dataset'" in tab.verdict and not tab.told[2]["interactive"]
    assert page.studio.start_draft() == "" and page.studio.queue.jobs() == []


def test_another_algorithm_says_where_its_rates_are_from(page, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Info", told.append)
    Tab(page).set("adapter.algorithm", "oft")
    assert "pocket-oft" in told.pop()
    page.studio.draft.begin({"model": {"base": "nowhere"}})
    Tab(page).set("adapter.algorithm", "oft")
    assert "rates stay" in told.pop()


def test_the_cards_are_counted_until_all_is_known(page):
    *_, (update, told) = page.count([])
    assert [name for _, name in told] == page.algorithm_row["choices"] and update["choices"] == told
    card = told[0][0].replace(HARD, " ")
    assert card.startswith("lora\n") and "558,720 numbers" in card and "not known" not in card
    (same, again), *_ = page.count(told)
    assert again == told and "choices" not in same


def test_the_cards_of_a_base_that_is_not_there_say_so(page):
    page.studio.draft.begin({"model": {"base": "nowhere"}})
    *_, (update, _) = page.count([])
    assert len(update["choices"]) == len(page.algorithm_row["choices"])
    assert all("not known yet" in card for card, _ in update["choices"])


def test_a_card_is_the_settings_own_control(page):
    control = page.algorithm
    assert isinstance(control, gr.Radio) and control.elem_id == "set-adapter-algorithm"
    tab = Tab(page)
    tab.set("adapter.algorithm", "oft")
    assert "adapter.algorithm" in tab.changed
    label = next(update["label"] for update in tab.told if update.get("value") == "oft")
    assert label.startswith(form.MARK)
    tab.take(page.reset([], ""))
    assert tab.get("adapter.algorithm") == "lora"


def test_two_tabs_do_not_undo_each_other(page):
    one, other = Tab(page), Tab(page)
    one.set("train.steps", 30)
    other.set("optimizer.lr", 0.01)
    assert page.studio.draft.values["train"]["steps"] == 30 and other.get("train.steps") == 30


def test_settings_without_effect_and_of_other_algorithms_are_hidden(page):
    tab = Tab(page)
    assert "adapter.k" not in tab.visible and "adapter.rank" in tab.visible
    tab.set("adapter.algorithm", "hadamard")
    assert "adapter.k" in tab.visible and tab.get("adapter.algorithm") == "hadamard"
    tab.set("train.text_encoder", False)
    assert "optimizer.text_encoder_lr" not in tab.visible


def test_a_started_recipe_is_in_the_queue(page):
    name = page.studio.start_draft()
    assert name and [job.name for job in page.studio.queue.jobs()] == [name]


def test_a_change_in_one_line():
    assert change_line("optimizer.lr", None, 0.001) == "optimizer.lr: not set → 0.001"


def test_values_of_a_page_that_has_no_answer_yet_are_no_changes(page):
    before = page.studio.draft.values
    page.edit("", None, [], *(row["default"] for row in page.rows))
    assert page.studio.draft.values == before


def test_what_a_tab_was_shown_travels_with_its_values(page):
    assert not isinstance(page.seen, gr.State), "a state of the server may be newer than the values that a tab sends"
