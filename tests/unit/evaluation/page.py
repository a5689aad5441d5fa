"""A report as a test sees it: its tables, texts and attributes, and whether all elements are closed."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "input", "wbr", "br", "img", "link", "image", "path", "line", "rect", "circle"}


class Page(HTMLParser):
    """Parses a file of HTML.

    Attributes:
        tables: per section's id, its tables as rows of cells' texts.
        attributes: element, attribute and value, in order.
        texts: what is written between the elements of the body, by the class of the element around it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._section = ""
        self._said: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self._open, f"not closed: {self._open}"

    def of(self, element: str, name: str) -> list[str]:
        """The values of an attribute of an element."""
        return [value for tag, key, value in self.attributes if (tag, key) == (element, name)]

    def said(self, kind: str) -> list[str]:
        """Texts inside elements of a class or of a tag."""
        return [text for where, text in self.texts if where == kind]

    @property
    def text(self) -> str:
        """All text."""
        return " ".join(self._said)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag in VOID:
            return
        self._open.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
        tables = self.tables.setdefault(self._section, [])
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in ("td", "th"):
            tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1][0] == tag, f"</{tag}> closes <{self._open[-1][0]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not data.strip() or not self._open or self._open[-1][0] in ("style", "script"):
            return
        self._said.append(data)
        self.texts += [(name, data) for name in self._names()]
        if any(tag in ("td", "th") for tag, _ in self._open):
            row = self.tables[self._section][-1][-1]
            small = any(tag == "small" for tag, _ in self._open)
            row[-1] += f" {data.strip()}" if small else data.strip()

    def _names(self) -> Iterator[str]:
        tag, attributes = self._open[-1]
        yield tag
        yield from (attributes.get("class") or "").split()
