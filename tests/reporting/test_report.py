"""`fedjax-mrl report` and `fm.report`, as users call them."""

import csv
import html.parser
import io
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.reporting import drawing, folder, nested, widths
from tests.exporting.federations import features
from tests.networks import SMALL
from tests.reporting import runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Runs that nobody trained, of two methods and three seeds."""
    return runs.comparison(tmp_path_factory.mktemp("compared"))


@pytest.fixture(scope="module")
def made(compared):
    """Their report."""
    out = compared.parent / f"{compared.name}-report"
    assert main(["report", str(compared), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of FedMRL with a checkpoint."""
    path = tmp_path_factory.mktemp("trained") / "a"
    words = ["--models", SMALL, "--shared-model", SMALL, "--num-clients", "3"]
    words += ["--partition", "iid", "--feature-dim", "8", "--shared-dim", "3"]
    words += ["--rounds", "1", "--quiet", "--devices", "1", "--out", str(path)]
    assert main(["run", *words]) == 0
    return path


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are drawn, and written without looking at them: that takes longest."""
    for name in ("png", "svg"):
        monkeypatch.setattr(drawing, name, lambda figure, name=name: name.encode())


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def content(path):
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


class Page(html.parser.HTMLParser):
    """What a page has: its tags with their attributes, and its words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def read(path):
    return Page((path / folder.PAGE).read_text(encoding="utf-8"))


def said(path):
    return re.sub(r"\s+", " ", " ".join(read(path).words))


def test_a_report_has_every_table_and_figure_in_every_form(made):
    figures = {"curves", "standalone", "ranked", "architectures-dots", "costs", "split"}
    files = content(made)
    for name in figures - {"split"}:
        assert files[f"figures/{name}.svg"].startswith(b"<?xml")
        assert Image.open(io.BytesIO(files[f"figures/{name}.png"])).size[0] > 500
    tables = {"accuracy", "by-round", "differences-seeds", "differences-clients"}
    tables |= {"clients", "architectures", "targets", "runs"}
    names = {f"tables/{name}.{end}" for name in tables for end in ("csv", "md", "tex")}
    assert names <= set(files)
    (pair,) = table(made / "tables" / "differences-seeds.csv")
    assert (pair["method"], pair["minus"]) == ("fml", "standalone")
    assert 0.05 < float(pair["difference"]) < 0.15
    assert float(pair["t_interval_low"]) < 0.1 < float(pair["t_interval_high"])
    assert pair["p_t"] and not pair["p_wilcoxon"]
    (pair,) = table(made / "tables" / "differences-clients.csv")
    assert pair["clients"] == "8" and pair["p_wilcoxon"] == pair["p_holm"] != ""


def test_the_page_needs_nothing_and_says_what_it_shows(made):
    page = read(made)
    assert page.open == []
    text = (made / folder.PAGE).read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "url(" not in text and "@import" not in text
    links = [link["href"] for link in page.of("a")]
    names = {attributes.get("id") for _, attributes in page.tags}
    assert links and {link.lstrip("#") for link in links} <= names
    images, tables = page.of("img"), page.of("table")
    assert len(images) == 5 and all(len(image["alt"]) > 40 for image in images)
    assert len(page.of("caption")) == len(tables) >= 6
    assert all(head["scope"] in ("col", "row") for head in page.of("th"))
    assert page.words.count("How to read it") == page.words.count("What is shown") > 8


def test_what_is_missing_is_said(made, undrawn, tmp_path):
    told = said(made)
    assert "The split cannot be drawn" in told
    assert "No method here fuses representations" in told
    one = runs.write(tmp_path / "one", np.full((2, 3), 0.5), algorithm="fml")
    report = fm.report(one, tmp_path / "report")
    told = said(report.path)
    assert "Every method has one seed" in told
    assert "There is one method here" in told
    assert "There is no run of Standalone" in told
    assert "All clients have the same network" not in told
    (one / "rounds.csv").unlink()
    (one / "clients.csv").unlink()
    told = said(fm.report(one, tmp_path / "bare").path)
    assert "These runs have no table of single clients" in told
    assert "not recorded" in told and "nothing." not in told
    two = runs.write(tmp_path / "two", np.full((1, 3), 0.5), algorithm="fd", rounds=2)
    report = fm.report([one, two], tmp_path / "both")
    told = said(report.path)
    assert "not equally far" in told and "no run of Standalone (each client" in told


def test_intervals_beyond_100_per_cent_are_explained_and_no_axis_goes_there(
    made, monkeypatch, tmp_path
):
    ends = {}

    def written(figure):
        for axes in figure.axes:
            ends.setdefault(axes.get_xlabel() or "alone", []).append(axes.get_xlim()[1])
        return b""

    monkeypatch.setattr(drawing, "svg", written)
    monkeypatch.setattr(drawing, "png", lambda figure: b"")
    for seed, value in enumerate((0.97, 1.0)):
        for name in ("fml", "standalone"):
            runs.write(
                tmp_path / "c" / f"{name}-{seed}",
                np.full((1, 4), value),
                algorithm=name,
                seed=seed,
                models=("mlp", "cnn1"),
            )
    out = fm.report(tmp_path / "c", tmp_path / "report", use_checkpoints=False).path
    (first, _) = table(out / "tables" / "accuracy.csv")
    assert float(first["last_interval_high"]) > 1
    assert "too few seeds were played" in said(out)
    assert "too few seeds were played" not in said(made)
    assert ends["alone"] == [1.0] and ends["mean test accuracy of its clients"] == [1.0]


def test_words_suit_what_there_is(made):
    told, page = said(made), (made / folder.PAGE).read_text(encoding="utf-8")
    assert "Colours and shapes" in told and "All dots look alike" not in told
    assert "MB sent and received" in told
    assert told.count("Accuracy at every width") == 2  # contents and heading
    assert '<td class="number">4</td>' in page  # the round of a difference
    assert ".scroll { background:" in page
    assert "second worst" in told


def test_dots_of_one_network_are_said_to_look_alike(tmp_path, undrawn):
    for name, value in (("fml", 0.6), ("standalone", 0.5)):
        path = tmp_path / "c" / name
        runs.write(path, np.full((1, 3), value), algorithm=name, models=("mlp",))
    out = fm.report(tmp_path / "c", tmp_path / "report").path
    assert "since all clients have one network, mlp" in said(out)
    assert "Colours and shapes" not in said(out)


def test_a_report_made_again_is_the_same(compared, made, tmp_path):
    again = fm.report(compared, tmp_path / "again").path
    assert content(again) == content(made)


def test_every_width_is_computed_and_the_full_ones_are_evaluates(trained, tmp_path):
    out = tmp_path / "report"
    assert main(["report", str(trained), "--out", str(out), "--client", "1"]) == 0
    rows = table(out / "tables" / "widths-all.csv")
    found = {(row["header"], int(row["width"])): float(row["accuracy"]) for row in rows}
    assert sorted(found) == [
        *(("coarse", width) for width in (1, 2, 3)),
        *(("fine", width) for width in range(1, 9)),
    ]
    federation = fm.load(trained)
    scores = federation.evaluate().accuracy[0].mean(axis=1)
    heads = dict(zip(federation.algorithm.heads, scores, strict=True))
    assert found["fine", 8] == pytest.approx(heads["mix_large"], abs=1e-6)
    assert found["coarse", 3] == pytest.approx(heads["mix_small"], abs=1e-6)
    for client in range(3):  # at a width between, with the projector cut by hand
        (one,) = nested.answers(federation, [client])
        networks = federation.networks(client)
        header = networks["private"].header
        cut = np.where(np.arange(8) < 5, one.fused, 0)
        logits = cut @ header["kernel"] + header["bias"]
        assert np.array_equal(one.fine[:, 4], logits.argmax(axis=1))
    told = said(out)
    assert "Representations of client 1's test examples" in told
    assert (out / "figures" / "split.svg").exists()
    assert widths.HEADERS == ("coarse", "fine")


def test_without_a_checkpoint_the_rest_is_there(trained, undrawn, tmp_path):
    shutil.copytree(trained, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    told = said(fm.report(tmp_path / "a", tmp_path / "report").path)
    assert "is not in this part: There is no checkpoint" in told
    argv = ["report", str(tmp_path / "a"), "--out", str(tmp_path / "b")]
    assert main([*argv, "--no-checkpoints", "--targets", "0.01"]) == 0
    assert "is not in this part" not in said(tmp_path / "b")
    assert {row["target"] for row in table(tmp_path / "b/tables/targets.csv")} == {
        "0.01"
    }


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["full", "local"])
def test_ablations_have_widths_too(readout):
    federation = features("fedmrl", set={"algorithm.readout": readout})
    scores = federation.evaluate().accuracy[0].mean(axis=1)
    heads = dict(zip(federation.algorithm.heads, scores, strict=True))
    found = nested.answers(federation, [0, 1, 2])
    fine = nested.accuracies(found, "fine")
    assert fine.size == 8 and fine[-1] == pytest.approx(heads["mix_large"])
    coarse = nested.accuracies(found, "coarse")
    if readout == "full":
        assert coarse.size == 8 and coarse[-1] == pytest.approx(heads["mix_small"])
    else:
        assert coarse.size == 0


@pytest.mark.slow
def test_methods_that_fuse_nothing_are_refused():
    with pytest.raises(ValueError, match="no fused representation"):
        nested.answers(features("fml"), [0])


def test_a_header_that_is_not_linear_is_found(trained, monkeypatch):
    federation = fm.load(trained)
    (group,) = federation.groups
    model = group.model
    bent = model._replace(head=lambda params, h: model.head(params, h) ** 2)
    monkeypatch.setattr(
        type(federation), "groups", [group._replace(model=bent)], raising=False
    )
    with pytest.raises(ValueError, match="is not one linear layer"):
        nested.answers(federation, [0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist. Give the --out folder"),
        (["empty"], "empty holds no run"),
        (["new"], "There is no run to report on: .*new: no round of it was evaluated"),
        (["one", "--targets", "x"], "--targets takes accuracies"),
        (["one", "--targets", "50"], "accuracy above 0 and at most 1.* got 50"),
        (["one", "--client", "x"], "--client takes a client's number"),
        (["one", "--client", "77"], "no client 77 in these runs; .* from 0 to 1"),
        (["one", "--client", "-1"], "A client is a number from 0"),
        (["one", "--out", "other"], "holds other files .*and no report"),
        (["one", "--out", "other", "--overwrite"], "holds other files"),
        (["one", "--out", "other/file"], "is a file, or lies below one"),
        (["one", "--out", "other/file/x/y"], "is a file, or lies below one"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    os.makedirs("empty/below")
    os.makedirs("other")
    (tmp_path / "other" / "file").write_text("mine")
    runs.write(tmp_path / "one", np.full((1, 2), 0.5), algorithm="fml")
    runs.write(tmp_path / "new", np.full((0, 2), 0.5), algorithm="fml", rounds=1)
    before = content(tmp_path)
    assert main(["report", *words]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and told.count("\n") == 1, told
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": 1.5}, r"A client is a number from 0; got 1\.5"),
        ({"client": "0"}, "A client is a number from 0; got '0'"),
        ({"client": True}, "A client is a number from 0; got True"),
        ({"targets": 0.5}, "targets must be a list of accuracies"),
        ({"targets": ("0.5",)}, "A target is an accuracy above 0 .* got '0.5'"),
        ({"targets": "0.5"}, "A target is an accuracy above 0 .* got '0'"),
    ],
)
def test_options_of_another_type_are_answered_in_a_sentence(options, message, tmp_path):
    one = runs.write(tmp_path / "one", np.full((1, 2), 0.5), algorithm="fml")
    with pytest.raises(ValueError, match=message):
        fm.report(one, tmp_path / "report", **options)
    assert os.listdir(tmp_path) == ["one"]


def test_runs_that_cannot_be_read_are_left_out_and_named(undrawn, tmp_path, capsys):
    runs.write(tmp_path / "c" / "one", np.full((1, 2), 0.5), algorithm="fml")
    (tmp_path / "c" / 't<i>"wo&').mkdir()
    (tmp_path / "c" / 't<i>"wo&' / "config.json").write_text("{")
    out = tmp_path / "report"
    assert main(["report", str(tmp_path / "c"), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert 't<i>"wo& is left out: its config.json cannot be read' in told.err
    assert "report.html" in told.out
    assert 't<i>"wo&: its config.json' in said(out)
    assert read(out).of("i") == []


def test_a_report_is_replaced_when_asked_and_nothing_else_goes(
    undrawn, tmp_path, monkeypatch
):
    one = runs.write(tmp_path / "one", np.full((1, 2), 0.5), algorithm="fml")
    two = runs.comparison(tmp_path / "two", seeds=1)
    out = fm.report(two, tmp_path / "report").path
    (out / "figures" / "mine.txt").write_text("mine")
    (out / "tables" / "clients.csv").write_text("changed by hand")
    with pytest.raises(ValueError, match="holds a report already"):
        fm.report(one, out)
    before = content(out)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder.os, "fsync", fail)
        assert main(["report", str(one), "--out", str(out), "--overwrite"]) == 1
        with pytest.raises(OSError, match="No space"):
            fm.report(one, tmp_path / "deep" / "new")
    assert content(out) == before and not (tmp_path / "deep").exists()
    fm.report(one, out, overwrite=True)
    after = content(out)
    assert after["figures/mine.txt"] == b"mine"
    assert "figures/standalone.svg" in before and "figures/standalone.svg" not in after
    assert b"changed by hand" not in after["tables/clients.csv"]
    (out / "figures" / "standalone.svg").write_text(
        "mine too"
    )  # a name of the report's
    before = content(out)
    with pytest.raises(ValueError, match=r"standalone\.svg is no file of the report"):
        fm.report(two, out, overwrite=True)
    assert content(out) == before
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".report")]
