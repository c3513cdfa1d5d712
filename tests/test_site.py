"""The documentation site: what is generated from the code, and its checks."""

import ast
import functools
import re
import shlex

import pytest

import fedjax_mrl
from docs.extensions import equations, links, pages
from fedjax_mrl import algorithms, config
from fedjax_mrl.cli import main as cli
from fedjax_mrl.runs import comparison_rows, directory, summary
from tests import documents


def text_of(markup):
    """What a reader sees of MathML."""
    return re.sub(r"<[^>]+>", "", markup)


@pytest.mark.parametrize("name", algorithms.names())
def test_a_methods_page_says_what_its_file_says(name):
    page = pages.method(name)
    for option, default in algorithms.hyperparameters(name).items():
        row = re.search(
            rf"`--set algorithm.{option}={re.escape(str(default))}` \| (.*) \|", page
        )
        assert row and row[1], option
    assert "<math display" in page and f"algorithms/{name}.py" in page
    assert name == "standalone" or re.search(r"## Reference\n\n.*<https://", page)
    (command,) = re.findall(r"^fedjax-mrl run .*$", page, re.MULTILINE)
    assert cli.parse(command.split()[1:]).algorithm == name


def test_the_page_of_commands_has_every_option_of_every_command():
    page = pages.commands()
    for name, parser in cli.parser().commands.items():
        assert f"\n## {name}\n" in page
        for option in parser._option_string_actions:
            assert re.search(rf"[`, ]{option}[`, ]", page) or option in ("-h", "--help")
    shared = page.partition("## The configuration")[2]
    for field in config.fields():
        assert f"| `--{field.replace('_', '-')} " in shared, field


def test_the_page_of_python_has_every_public_name():
    page = pages.api()
    for name in fedjax_mrl.__all__:
        assert name == "__version__" or f":: fedjax_mrl.{name}\n" in page


def test_pages_are_written_once_and_old_ones_go(tmp_path):
    pages.write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    (tmp_path / "methods" / "gone.md").write_text("of a method that is no more")
    pages.write(tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    assert after == before and tmp_path / "methods" / "fedmrl.md" in after


@pytest.mark.parametrize(
    ("line", "seen", "tag"),
    [
        ("w = sum_k n_k / n  w_k    on the server", "w=∑knknwkon the server", "mfrac"),
        ("R~_k = P_k(R_k)", "R~k=Pk(Rk)", "mover"),
        ("y <- F_k^hd(x) + ||a + b||^2", "y←Fkhd(x)+‖a+b‖2", "msubsup"),
        ("L_meme = KL(p_s || p_t), e = t/T", "Lmeme=KL(ps‖pt),e=tT", "mfrac"),
        ("d = min_{c != b} phi(Q_c, Q_b)", "d=minc≠bφ(Qc,Qb)", "munder"),
        ("m = mean of f_k(x) over client k", "m=mean offk(x)over clientk", "mtext"),
    ],
)
def test_equations_read_as_they_are_written(line, seen, tag):
    markup = equations.block(line)
    assert text_of(markup) == seen
    assert f"<{tag}>" in markup


def test_variables_in_sentences_are_set_and_code_is_not():
    found = equations.sentence("A client k has F_k, theta and `F_k`; a low-rank one.")
    assert text_of(found) == "A client k has Fk, θ and `F_k`; a low-rank one."
    assert found.count("<math>") == 3


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>', encoding="utf-8")
    good = '<a href="b.html#here"><a href="#top"><p id="top"><a href="https://a.org/x">'
    (tmp_path / "a.html").write_text(good, encoding="utf-8")
    assert links.broken(tmp_path) == []
    bad = '<a href="c.html"><img src="no.png"><a href="b.html#no"><a href="https://x">'
    (tmp_path / "a.html").write_text(bad, encoding="utf-8")
    found = links.broken(tmp_path)
    assert [re.search(r": (\S+) ", text)[1] for text in found] == [
        "c.html",
        "no.png",
        "b.html#no",
        "https://x",
    ]


def test_every_page_of_the_documents_is_in_the_contents():
    index = (pages.ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(?:\w+ <)?([\w/]+)>?$", index, re.MULTILINE)
    inside = {"methods", "deviations", "index"}  # below the list of methods
    for path in documents.documents():
        if path.parent == pages.ROOT / "docs":
            assert path.stem in {*listed, *inside}, f"name {path.name} in docs/index.md"


def test_the_page_of_results_explains_every_file_and_column():
    page = (pages.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    explained = {
        title: re.findall(r"^\| `(\w+)` \| \S", text, re.MULTILINE)
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    }
    for table, columns in directory.COLUMNS.items():
        assert explained[table] == list(columns), table
    assert explained["comparison.csv"] == list(comparison_rows.COLUMNS)
    keys = [*summary.Summary.__annotations__, *summary.Headline.__annotations__]
    assert explained["summary.json"] == keys
    for name in (*directory.FILES, *directory.FOLDERS, *directory.TABLES):
        assert re.search(rf"^\| .*`{name}`.* \| \S", page, re.MULTILINE), name


def fits(pattern, text):
    """Whether a quoted message fits a text; `…` stands for anything."""
    parts = map(re.escape, re.split(r"\s*…\s*", " ".join(pattern.split())))
    return re.search(r"\s*.*?\s*".join(parts), " ".join(text.split()))


def quoted():
    """The messages of docs/errors.md."""
    found = [
        block.text.strip()
        for block in documents.blocks()
        if block.document == "docs/errors.md" and block.language == "text"
    ]
    assert len(found) > 20
    return found


@functools.cache
def templates():
    """Every text of the source; what is filled in is left out."""
    found = []
    for path in (pages.ROOT / "fedjax_mrl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", "…") for part in node.values]
                found.append("".join(p if isinstance(p, str) else "…" for p in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("text", [text for text in quoted() if text[0] == "$"])
def test_commands_of_the_page_of_errors_say_so(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, _, message = text.partition("\n")
    assert cli.main(shlex.split(command)[2:]) == 2
    assert fits(message, capsys.readouterr().err)


@pytest.mark.parametrize("text", [text for text in quoted() if text[0] != "$"])
def test_other_messages_of_the_page_of_errors_exist(text):
    assert any(fits(text, template) for template in templates())
