"""The page over all reports of a folder: index.html and index.md, with a link and the answer of each.

It is made from the reports themselves, of which each holds its answer as its description.
"""

import contextlib
import html.parser
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.report.page import rendered, runs_held

_OURS = "hift-bench report"
"""The generator that the pages name. A page of another one is never replaced."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A report: its folder, title and answer; `runs` is the number of its runs with a score."""

    name: str
    title: str
    answer: str
    runs: int
    markdown: str


def write_index(reports: Path) -> Path:
    """Write the index of the folder `reports`; returns the path of index.html.

    Raises UserError where an index.html is there that this program did not write.
    """
    page = reports / "index.html"
    if page.exists() and _Head.of(page).generator != _OURS:
        raise UserError(f"{page}: not written by hift-bench, so it stays as it is")
    entries = [entry for folder in sorted(reports.iterdir()) if (entry := _entry(folder))]
    values = {"name": "Reports", "entries": entries}
    for file in ("index.md", "index.html"):
        write_text(reports / file, rendered(f"reports.{Path(file).suffix[1:]}.j2", values))
    return page


def _entry(folder: Path) -> Entry | None:
    page = folder / "index.html"
    if folder.name.startswith(".") or not page.is_file():
        return None
    head = _Head.of(page)
    markdown = next((f for f in ("report.md", "index.md") if (folder / f).is_file()), "index.html")
    return Entry(
        name=folder.name,
        title=head.title.removesuffix(" · hift-benchmark"),
        answer=head.description,
        runs=runs_held(folder),
        markdown=markdown,
    )


class _Head(html.parser.HTMLParser):
    """The title of a page, and the generator and description that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.title = self.generator = self.description = ""
        self._in_title = False

    @classmethod
    def of(cls, page: Path) -> "_Head":
        head = cls()
        with contextlib.suppress(OSError, UnicodeDecodeError):  # such a page has no title
            head.feed(page.read_text(encoding="utf-8").partition("<style>")[0])
        return head

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._in_title = tag == "title"
        if tag == "meta" and values.get("name") in ("generator", "description"):
            setattr(self, str(values["name"]), values.get("content") or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
