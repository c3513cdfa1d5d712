"""Checks the links of the built site, without a network.

    python -m docs.extensions.links build/docs

Every file and every anchor that a page links to must be in the site; addresses of
other sites must be well formed.
"""

import argparse
import html.parser
import pathlib
import sys
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple


class Page(NamedTuple):
    """The links of a page, and the names that others may link to."""

    links: list[str]
    anchors: set[str]


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page([], set())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.page.links.append(value)
            elif name in ("id", "name") and value:
                self.page.anchors.add(value)


def read(path: pathlib.Path) -> Page:
    """The links and anchors of an HTML file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def broken(site: pathlib.Path) -> list[str]:
    """A sentence for each link of the site that leads nowhere."""
    paths = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    pages = {path: read(path) for path in paths}
    found = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            reason = _wrong(link, path, pages)
            if reason:
                found.append(f"{path.relative_to(site)}: {link} {reason}.")
    return found


def _wrong(link: str, path: pathlib.Path, pages: dict[pathlib.Path, Page]) -> str:
    parts = urllib.parse.urlsplit(link)
    if parts.scheme in ("data", "mailto", "javascript"):
        return ""
    if parts.scheme or parts.netloc:
        host = parts.hostname or ""
        good = parts.scheme in ("https", "http") and "." in host and " " not in link
        return "" if good else "is no address of a site"
    target = path
    if parts.path:
        target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
    if not target.is_file():
        return "names a file that is not in the site"
    anchor = urllib.parse.unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "names a place that is not on its page"
    return ""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=pathlib.Path, help="folder of the built site")
    return parser.parse_args(argv)


if __name__ == "__main__":
    problems = broken(arguments().site.resolve())
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)
