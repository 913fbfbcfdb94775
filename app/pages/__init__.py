"""The pages in the order of the navigation. A new page is a file and a line here."""

from app.page import Page
from app.pages import check, dataset, export, guide, home, inspect, recipe, runs, samples, train, tryit

PAGES: tuple[Page, ...] = (
    home.PAGE,
    dataset.PAGE,
    recipe.PAGE,
    check.PAGE,
    train.PAGE,
    samples.PAGE,
    tryit.PAGE,
    runs.PAGE,
    inspect.PAGE,
    export.PAGE,
    guide.PAGE,
)
