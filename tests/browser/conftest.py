"""A headless Chromium that is installed on this machine, and pages to look at in it."""

import os
import shutil

import pytest

from motet import report
from motet.study.live import State
from tests.report.make import problem_of, provenance_of, study

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield found
        found.close()


def _write(folder, made, nasty=False, **more):
    tasks, summary, runs = made
    given = {"title": "A study", "problem": problem_of(nasty), "tasks": tasks, "summary": summary, "runs": runs}
    known = provenance_of() | {"folder": "runs/digits-overlay"}
    return report.write(folder / "report.html", **given, provenance=known, **more)


@pytest.fixture(scope="session")
def usual(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("usual"), study(5, 6, 4, epochs=8))


@pytest.fixture(scope="session")
def nasty(tmp_path_factory):
    """Names that try to run, to close tags and to stretch tables."""
    return _write(tmp_path_factory.mktemp("nasty"), study(9, 2, 5, nasty=True, epochs=3, wild=True), nasty=True)


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    state = State(37, 64, 740.0)
    return _write(tmp_path_factory.mktemp("running"), study(3, 2, 2, epochs=4), running=state)


class Seen:
    """A page that is open, and what it asked for and said."""

    def __init__(self, browser, path, width=1280, **context):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **context)
        self.page = self.context.new_page()
        self.requests, self.messages = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.goto(path.as_uri())


@pytest.fixture
def open_page(browser):
    """Open a page; it is closed after the test."""
    opened = []

    def open_(path, **options):
        opened.append(Seen(browser, path, **options))
        return opened[-1]

    yield open_
    for seen in opened:
        seen.context.close()
