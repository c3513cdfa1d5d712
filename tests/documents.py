"""Finds what the documents and docstrings tell users to run."""

import ast
import functools
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from tests.helpers import ROOT

# Words that stand for something of the user's own.
PLACEHOLDERS = {"DIR": "folder", "SPLIT.npz": "split.npz", "P": "bfloat16"}


class Block(NamedTuple):
    """A fenced block of a document."""

    document: str  # its path below the project
    line: int
    language: str  # the info string, as "python" or "sh run"
    text: str


@functools.cache
def documents() -> list[pathlib.Path]:
    """All pages that a user reads."""
    folders = (ROOT, ROOT / "docs", ROOT / "experiments")
    return sorted(path for folder in folders for path in folder.glob("*.md"))


@functools.cache
def blocks() -> list[Block]:
    """Every fenced block of every page."""
    found = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            name = path.relative_to(ROOT).as_posix()
            found.append(Block(name, line, match[1].strip(), match[2]))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command line in a shell script, without comments."""
    for line in text.replace("\\\n", "").splitlines():
        code = re.sub(r"(^|\s)#.*", "", line)
        for part in re.split(r"&&|;|&$", code):
            words = shlex.split(part)
            while words and ("=" in words[0] or words[0] in ("do", "srun")):
                words.pop(0)  # environment variables, and what comes before a command
            if words:
                yield [PLACEHOLDERS.get(word, word) for word in words]


def docstring_commands() -> Iterator[str]:
    """Every command line that a docstring shows."""
    for folder in ("fedjax_mrl", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(source):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                    text = ast.get_docstring(node) or ""
                    pattern = r"^ {4,}((?:\S*python -m|fedjax-mrl) .*)$"
                    for match in re.finditer(pattern, text, re.MULTILINE):
                        yield re.sub(r"\s\[.*\]", "", match[1])
