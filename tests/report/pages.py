"""What tests of pages share: a parser that wants its tags to balance, and the words of pages and figures."""

import re
from html.parser import HTMLParser

from matplotlib.text import Text

from motet import report
from tests.report.make import problem_of, provenance_of

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Tags that must balance, ids, references and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.words = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def _note(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            elif key == "aria-labelledby":
                self.references += value.split()
            elif key in ("href", "src"):
                self.references.append(value.removeprefix("#") if value.startswith("#") else f"EXTERNAL {value}")
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")

    @property
    def text(self):
        return " ".join(self.words)


def write(folder, made, nasty=False, **changes):
    tasks, summary, runs = made
    given = {"title": "A study", "problem": problem_of(nasty), "provenance": provenance_of()} | changes
    return report.write(folder / "report.html", tasks=tasks, summary=summary, runs=runs, **given)


def written(folder, tasks, summary, runs, nasty=False):
    """The page as tags and as text."""
    text = write(folder, (tasks, summary, runs), nasty).read_text(encoding="utf-8")
    return Page(text), text


def assert_whole(text):
    """Balanced, each id once, references to ids of its own only, and nothing from elsewhere."""
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert "http:" not in text
    assert "https:" not in text


def words(figure):
    """All that is written in a figure."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]
