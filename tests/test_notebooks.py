"""The notebooks run from top to bottom, on a CPU with eight devices."""

import ast
import json
import os
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "experiments"
NAMES = ("colab.ipynb", "own_data.ipynb")
SHORT = "ROUNDS, SEEDS = 2, (0,)"  # in place of the cell of parameters


def cells(name):
    notebook = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return notebook["cells"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs(name):
    assert cells(name)
    for cell in cells(name):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    tags = [cell["metadata"].get("tags") for cell in cells(name)]
    assert tags.count(["parameters"]) == 1


def test_all_notebooks_are_run():
    assert sorted(path.name for path in FOLDER.rglob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_installed_beside_the_jax_that_is_there(name, monkeypatch):
    (source,) = [
        "".join(cell["source"]) for cell in cells(name) if "SOURCE" in str(cell)
    ]
    calls, limits = [], []

    def pip(command, check):
        calls.append(command)
        limits.append(pathlib.Path(command[command.index("-c") + 1]).read_text())

    monkeypatch.setattr("subprocess.run", pip)
    exec(compile(source, name, "exec"), {})
    assert not calls  # it is here
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(compile(source, name, "exec"), {})
    assert calls[0][-1] == "fedjax-mrl[notebook]"
    import jax

    assert f"jax=={jax.__version__}\n" in limits[0] and "jaxlib==" in limits[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            names = {line.split(" ")[0] for line in cell.source.splitlines()}
            assert names <= {"ROUNDS", "SEEDS"}
            cell.source = SHORT
    flags = os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    seen = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [each for each in seen if "image/png" in each.get("data", {})]
    text = "".join(each.get("text", "") for each in seen)
    errors = [
        e["text"] for e in seen if e.get("name") == "stderr" and "Error" in e.text
    ]
    assert not errors
    if name == "colab.ipynb":
        assert len(pictures) == 4  # split, curves of training, of methods, gains
        assert "8 x cpu" in text and "client 3 says" in text
        assert (tmp_path / "runs" / "fedmrl" / "summary.json").exists()
    else:
        assert len(pictures) == 2 and "client 5 (TextTransformer)" in text


@pytest.mark.parametrize("name", NAMES)
def test_code_of_a_notebook_is_python(name):
    for cell in cells(name):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            ast.parse(source.replace("%matplotlib inline", ""))
