"""The report as one page that needs nothing beside it: pictures are in it.

Small pure functions from values to HTML. The page has no address in it, and forbids
itself to load anything. Without its script only sorting is missing.
"""

import base64
import html
import importlib.resources
import re
from collections.abc import Iterable, Mapping

from fedjax_mrl.reporting import formats
from fedjax_mrl.reporting.content import (
    Chapter,
    Column,
    Note,
    Picture,
    Reading,
    Section,
    Table,
)

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


def render(
    title: str,
    introduction: Iterable[str],
    chapters: Iterable[Chapter],
    drawn: Mapping[str, bytes],
) -> str:
    """The page.

    Args:
        title: of the report.
        introduction: its first paragraphs.
        chapters: what follows.
        drawn: svg of every picture by its name.
    """
    chapters = list(chapters)
    parts = [
        f"<header><h1>{_text(title)}</h1>",
        *(f"<p>{_text(paragraph)}</p>" for paragraph in introduction),
        "</header>",
        _contents(chapters),
        "<main>",
        *(_chapter(number, each, drawn) for number, each in enumerate(chapters)),
        "</main>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>\n{_file('page.css')}</style>\n</head>"
        "\n<body>\n" + "\n".join(parts) + f"\n<script>\n{_file('page.js')}</script>\n"
        "</body>\n</html>\n"
    )


def _file(name: str) -> str:
    here = importlib.resources.files("fedjax_mrl.reporting")
    return (here / name).read_text(encoding="utf-8")


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def _prose(words: str) -> str:
    """A text in which what stands in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(words))


def _contents(chapters: list[Chapter]) -> str:
    lines = ['<nav aria-label="Contents">']
    for number, chapter in enumerate(chapters):
        lines.append(f'<p><a href="#c{number}">{_text(chapter.title)}</a></p><ul>')
        for place, section in enumerate(chapter.sections):
            link = f'<a href="#c{number}-{place}">{_text(section.title)}</a>'
            lines.append(f"<li>{link}</li>")
        lines.append("</ul>")
    return "\n".join([*lines, "</nav>"])


def _chapter(number: int, chapter: Chapter, drawn: Mapping[str, bytes]) -> str:
    sections = [
        _section(f"c{number}-{place}", section, drawn)
        for place, section in enumerate(chapter.sections)
    ]
    title = f'<h2 id="c{number}">{_text(chapter.title)}</h2>'
    return "\n".join([title, *sections])


def _section(name: str, section: Section, drawn: Mapping[str, bytes]) -> str:
    blocks = []
    said: set[Reading] = set()  # a table of what a figure shows is read like it
    for block in section.blocks:
        if isinstance(block, Note):
            blocks.append(f'<p class="note">{_prose(block.text)}</p>')
            continue
        reading = "" if block.reading in said else _reading(block.reading)
        said.add(block.reading)
        if isinstance(block, Table):
            blocks.append(f"<figure>{_table(block)}\n{reading}</figure>")
        else:
            shown = _picture(block, drawn[block.name])
            blocks.append(f"<figure>{shown}\n{reading}</figure>")
    title = f'<h3 id="{name}">{_text(section.title)}</h3>'
    return "\n".join(
        [f'<section aria-labelledby="{name}">', title, *blocks, "</section>"]
    )


def _picture(picture: Picture, svg: bytes) -> str:
    data = base64.b64encode(svg).decode("ascii")
    return (
        f"<figcaption>{_text(picture.caption)}</figcaption>\n"
        f'<div class="picture"><img alt="{_text(picture.alt)}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
    )


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_side(column)}>{_text(column.title)}</th>'
        for column in table.columns
    )
    rows = []
    for row in table.rows:
        cells = []
        for place, (cell, column) in enumerate(zip(row, table.columns, strict=True)):
            tag = ("th", ' scope="row"') if place == 0 else ("td", "")
            number = formats.order(cell)
            hidden = "" if number is None else f' data-order="{number:.9g}"'
            if cell is None or (formats.numeric(column) and number is None):
                hidden = ' data-empty="1"'
            shown = _text(formats.text(cell, column))
            kind = _side(column)
            cells.append(f"<{tag[0]}{tag[1]}{kind}{hidden}>{shown}</{tag[0]}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = _text(table.caption)
    return (
        '<div class="scroll" role="region" tabindex="0" '
        f'aria-label="{caption}"><table class="sortable"><caption>{caption}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>"
        "</table></div>"
    )


def _side(column: Column) -> str:
    return ' class="number"' if formats.to_the_right(column) else ""


def _reading(reading: Reading) -> str:
    titles = ("What is shown", "How to read it", "What it does not say")
    pairs = zip(titles, reading, strict=True)
    inside = "".join(f"<dt>{t}</dt><dd>{_prose(words)}</dd>" for t, words in pairs)
    return f'<dl class="reading">{inside}</dl>'
