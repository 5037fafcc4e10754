"""A strict reader of the suite's pages, and text that means them harm."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> "
    "| $x^2$ `b` *c* [d](javascript:0) & {{ 7*7 }}"
)


class Reader(HTMLParser):
    """Collects tables, scripts and links, and fails on a tag that is not closed."""

    EMPTY = ("meta", "br", "img", "input", "link", "hr")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts, self.links = 0, list[str]()
        self.tables: list[list[list[str]]] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
