"""Writes the pages that follow from the code: methods, commands, names in Python.

`write` puts them into docs/generated before Sphinx looks for pages, and copies what
lies elsewhere in the project: the changelog, the findings, notebooks.
"""

import argparse
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterator

import fedjax_mrl
from docs.extensions import equations
from experiments import methods_table
from fedjax_mrl import algorithms, protocol, tree
from fedjax_mrl.cli import main as cli
from fedjax_mrl.cli import options

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "generated"
# Pages that are written elsewhere in the project, by the name that they have here.
COPIES = {
    "findings": "experiments/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
}
# Methods of one architecture for all: the command of their page says which.
EQUAL = ("fedavg", "fedprox")


def write(target: pathlib.Path = TARGET) -> None:
    """Brings the generated pages up to date; leaves equal ones untouched."""
    pages = {
        **methods(),
        "commands": commands(),
        "api": api(),
        **copies(),
        **notebooks(),
    }
    for name, text in pages.items():
        path = target / (name if "." in name else f"{name}.md")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    known = {target / (name if "." in name else f"{name}.md") for name in pages}
    for path in sorted(target.rglob("*")):
        if path.is_file() and path not in known:
            path.unlink()


# Methods -----------------------------------------------------------------------------


def methods() -> dict[str, str]:
    """The page of every method, and the list of them, by name."""
    names = algorithms.names()
    rows = [
        f"| [{name}]({name}.md) | {methods_table.documentation(name)[0]} |"
        for name in sorted(names, key=lambda name: (name != "fedmrl", name))
    ]
    index = [
        "# Methods",
        "A page for each method, made from its file: the equations, what travels "
        "between a client and the server, the options, and where it differs from its "
        "paper. [What travels](../../methods.md) has the bytes of all of them in one "
        "table, [Deviations](../../deviations.md) where sources disagree.",
        "\n".join(["| method | in a sentence |", "| --- | --- |", *rows]),
        toctree([*names, "What travels <../../methods>", "../../deviations"]),
    ]
    pages = {f"methods/{name}": method(name) for name in names}
    return {"methods/index": join(index), **pages}


def method(name: str) -> str:
    """The page of one method."""
    module = inspect.getmodule(algorithms.get(name))
    text = inspect.getdoc(module) or ""
    body, notes = re.split(r"\n(?=(?:Reference|Differences):\n)|\Z", text, maxsplit=1)
    title, _, body = body.partition("\n\n")
    found = {
        part[1]: textwrap.dedent(part[2])
        for part in re.finditer(
            r"^(Reference|Differences):\n((?:(?: {4}.*)?\n?)+)", notes or "", re.M
        )
    }
    called, _, meaning = " ".join(title.split()).rstrip(".").partition(": ")
    pieces = [f"# {called}", f"*{meaning[:1].upper()}{meaning[1:]}.*"]
    pieces += [*prose(body), *_facts(name)]
    if "Differences" in found:
        pieces += [
            "## Differences from the paper",
            "\n".join(equations.sentence(s) for s in found["Differences"].splitlines()),
        ]
    if "Reference" in found:
        reference = " ".join(found["Reference"].split())
        pieces += ["## Reference", re.sub(r"(https://\S+)", r"<\1>", reference)]
    where = pathlib.Path(inspect.getfile(module)).relative_to(ROOT).as_posix()
    return join([*pieces, f"The method is the file `{where}`."])


def prose(text: str) -> Iterator[str]:
    """Paragraphs and blocks of equations of a docstring, as Markdown."""
    for part in re.split(r"\n(?=    )(?<=\n\n)|\n\n", text):
        if part.startswith("    "):
            html = equations.block(textwrap.dedent(part))
            yield f"```{{raw}} html\n{html}\n```"
        elif part.strip():
            yield equations.sentence(part)


def _facts(name: str) -> list[str]:
    """What travels, how a client answers, the options and a command to try."""
    down, up, private, heads = methods_table.crossing(name)
    traffic = [
        "| | what | bytes a client and round |",
        "| --- | --- | --- |",
        f"| to a client | {methods_table.describe(down)} | {tree.num_bytes(down):,} |",
        f"| to the server | {methods_table.describe(up)} | {tree.num_bytes(up):,} |",
        f"| stays private | {', '.join(private) or 'nothing'} | 0 |",
    ]
    equal = name in EQUAL
    return [
        "## What travels",
        "Counted in float32 for CIFAR-10 and the default options, with "
        + (
            "CNN-1 at every client."
            if equal
            else "CNN-1 to CNN-5 at the clients and CNN-5 as the shared network."
        ),
        "\n".join(traffic),
        "## Inference",
        "A trained client answers in "
        + (
            f"one way, the head `{heads[0]}`."
            if len(heads) == 1
            else f"{len(heads)} ways (*heads*): "
            + ", ".join(f"`{head}`" for head in heads)
            + ". The first one is the headline of tables."
        ),
        "## Options",
        _options(name),
        "## Try it",
        f"```sh\nfedjax-mrl run --algorithm {name} --models mlp --shared-model mlp "
        f"--rounds 5 --out runs/{name}\n```",
    ]


def _options(name: str) -> str:
    """The table of a method's hyper-parameters."""
    defaults = algorithms.hyperparameters(name)
    if not defaults:
        return "None of its own."
    said = arguments(inspect.getdoc(algorithms.get(name)) or "")
    rows = [
        f"| `--set algorithm.{option}={default}` | {cell(said.get(option, ''))} |"
        for option, default in defaults.items()
    ]
    return "\n".join(["| option and default | meaning |", "| --- | --- |", *rows])


def arguments(text: str) -> dict[str, str]:
    """The section Args of a docstring: name to sentence."""
    section = re.search(r"^Args:\n((?:(?: {4}.*)?\n?)+)", text, re.MULTILINE)
    found: dict[str, str] = {}
    if section:
        for part in re.split(r"\n(?=\w)", textwrap.dedent(section[1])):
            names, _, meaning = part.partition(":")
            for name in names.split(","):
                found[name.strip()] = " ".join(meaning.split())
    return found


# Commands ----------------------------------------------------------------------------


def commands() -> str:
    """The page of the command line, from its parser."""
    shared = {action.dest for action in _configuration().actions}
    pieces = [
        "# Commands",
        "Made from the parser that reads them. `fedjax-mrl COMMAND --help` prints the "
        "same. Options that several commands share are in "
        "[the configuration](#the-configuration).",
    ]
    for name, command in sorted(cli.parser().commands.items()):
        found = {action.dest for action in command._actions}
        hidden = {"help", *(shared if shared <= found else ())}
        own = [action for action in command._actions if action.dest not in hidden]
        pieces += [f"## {name}", sentence(command.description or "") + "."]
        pieces.append(f"```text\n{usage(name, command)}\n```")
        if own:
            pieces.append(option_table(own))
        if shared <= found:
            pieces.append("And all options of [the configuration](#the-configuration).")
    pieces += [
        "## The configuration",
        "Each of these options is also a key of a YAML file (`--config`), with `_` for "
        "`-`, and an argument of `fm.Federation`. A default yields to a preset, a "
        "preset to a file, a file to an option of the command line.",
        option_table(_configuration().actions),
        "## Exit status",
        "| status | meaning |\n| --- | --- |\n"
        "| 0 | done |\n"
        "| 1 | something outside failed, such as a disk |\n"
        "| 2 | wrong use or configuration; nothing was trained |\n"
        "| 3 | a run that diverged |\n"
        "| 128 and the number of a signal | ended by that signal, with a checkpoint |",
    ]
    return join(pieces)


class _Collected(argparse.ArgumentParser):
    """A parser that is only asked what it has."""

    @property
    def actions(self) -> list[argparse.Action]:
        """Its options but --help."""
        return [action for action in self._actions if action.dest != "help"]


def _configuration() -> _Collected:
    parser = _Collected()
    options.add(parser)
    return parser


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    """The line that shows how a command is called: what it must have."""
    words = [f"fedjax-mrl {name}"]
    for action in parser._actions:
        if not action.option_strings:
            words.append(_metavar(action))
        elif action.required:
            words.append(f"{action.option_strings[0]} {_metavar(action)}")
    optional = [a for a in parser._actions if a.option_strings and a.dest != "help"]
    return " ".join([*words, "[options]"] if optional else words)


def option_table(actions: list[argparse.Action]) -> str:
    """A table of options and arguments with what their help says."""
    rows = []
    for action in actions:
        names = ", ".join(action.option_strings)
        value = _metavar(action) if action.nargs != 0 else ""
        said = (action.help or "") % {**vars(action), "prog": "fedjax-mrl"}
        shown = " ".join(filter(None, [names, value]))
        rows.append(f"| `{shown}` | {cell(sentence(said))} |")
    return "\n".join(["| option | meaning |", "| --- | --- |", *rows])


def _metavar(action: argparse.Action) -> str:
    if action.metavar:
        return str(action.metavar)
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


# Python ------------------------------------------------------------------------------


def api() -> str:
    """The page of every public name, which autodoc fills."""
    pieces = [
        "# Python: every public name",
        "`import fedjax_mrl as fm`. What is listed here is stable "
        "([the promise](../stability.md)); other modules may change. "
        "[In Python](../python.md) shows them at work.",
    ]
    for name in fedjax_mrl.__all__:
        if not name.startswith("_"):
            pieces.append(documented("fedjax_mrl", name, getattr(fedjax_mrl, name)))
    pieces += [
        "## For a method of your own",
        "The types of `fedjax_mrl.protocol`, of which a method is made; "
        "[Adding a method](../adding_an_algorithm.md) uses them.",
    ]
    for name, value in vars(protocol).items():
        own = inspect.isclass(value) and value.__module__ == protocol.__name__
        if own and name not in fedjax_mrl.__all__:
            pieces.append(documented("fedjax_mrl.protocol", name, value, "###"))
    return join(pieces)


def documented(module: str, name: str, value: object, level: str = "##") -> str:
    """A heading and the directive that shows one name."""
    kind = "autoclass" if inspect.isclass(value) else "autofunction"
    inside = []
    if inspect.isclass(value) and not issubclass(value, (tuple, Exception)):
        inside = [":members:", ":inherited-members:"]
    directive = "\n   ".join([f".. {kind}:: {module}.{name}", *inside])
    return f"{level} {name}\n\n```{{eval-rst}}\n{directive}\n```"


# What lies elsewhere -----------------------------------------------------------------


def copies() -> dict[str, str]:
    """Pages of the project that lie outside of docs, with their links put right."""
    return {
        name: moved((ROOT / path).read_text("utf-8")) for name, path in COPIES.items()
    }


def moved(text: str) -> str:
    """A page of the project's root as it reads from docs/generated."""
    return re.sub(r"\]\(docs/", "](../", text)


def notebooks() -> dict[str, str]:
    """The notebooks of experiments/, and the page that lists them."""
    found = sorted((ROOT / "experiments").glob("*.ipynb"))
    pages = {f"notebooks/{path.name}": path.read_text("utf-8") for path in found}
    listed = toctree([path.stem for path in found]) if found else "None yet."
    index = [
        "# Notebooks",
        "They lie in `experiments/`, to be opened anywhere.",
        listed,
    ]
    return {"notebooks/index": join(index), **pages}


# Markdown ----------------------------------------------------------------------------


def join(pieces: list[str]) -> str:
    """A page of its blocks."""
    return "\n\n".join(pieces) + "\n"


def toctree(names: list[str]) -> str:
    """The pages below a page; they show in the margin."""
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def cell(text: str) -> str:
    """Text that fits into a table."""
    return text.replace("|", r"\|")


def sentence(text: str) -> str:
    """Text of the command line as Markdown: options as code, signs as they are."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", text)
    escape: Callable[[str], str] = lambda part: re.sub(r"([<>*_])", r"\\\1", part)
    parts = re.split(r"(`[^`]*`)", text)
    text = "".join(part if part.startswith("`") else escape(part) for part in parts)
    return text[:1].upper() + text[1:]
