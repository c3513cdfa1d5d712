"""Exports one client of a federation: its program, its arrays, its state_dict."""

import importlib.metadata
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from fedjax_mrl import discovery, packing
from fedjax_mrl._version import __version__
from fedjax_mrl.exporting import description as descriptions
from fedjax_mrl.exporting import extras, folder, program, torch_names
from fedjax_mrl.exporting.description import Description
from fedjax_mrl.exporting.error import ExportError
from fedjax_mrl.exporting.subject import Subject
from fedjax_mrl.protocol import UNKNOWN, Tree
from fedjax_mrl.simulation.state import named, require_live

# Format to its file, and the package that writes it.
FORMATS = {
    "jax": (folder.PROGRAM, "flatbuffers"),
    "safetensors": (folder.ARRAYS, "safetensors"),
    "torch": (folder.TORCH, "safetensors"),
}
DEFAULT = ("jax", "safetensors")
_CHECKED = 4  # examples on which the program must agree with the federation
# Of the largest logit: convolutions are computed another way, and on an accelerator
# with rounded operands.
_TOLERANCE = 0.02


def export(
    subject: Subject,
    given: str | os.PathLike,
    *,
    formats: str | Iterable[str] | None = None,
    overwrite: bool = False,
    run: str | None = None,
) -> pathlib.Path:
    """Writes a client's personal model; see `Federation.export`.

    Args:
        subject: whose.
        given: the folder.
        formats: some of `FORMATS`, also as one text with commas.
        overwrite: replace the model that is there.
        run: where the run lies, for the description.

    Returns:
        The folder.

    Raises:
        ValueError: for what cannot be exported, before anything is written.
        OSError: if it cannot be written; then nothing is.
    """
    wanted = require_formats(formats)
    path = folder.check(given, overwrite=overwrite)
    require_live(subject.state)
    digest, networks = subject.digest(), subject.networks()
    examples = subject.federation.dataset.x_test[:_CHECKED]
    expected = subject.ask(examples)
    unknown = np.all(expected <= UNKNOWN, axis=0)
    descriptions.require_known_classes(subject.choice, unknown)
    made = descriptions.describe(
        subject, run=run, digest=digest, unknown=unknown, versions=_versions()
    )
    files = {}
    if "jax" in wanted:
        files[folder.PROGRAM] = _program(subject, networks, digest)
        _require_agreement(files[folder.PROGRAM], examples, expected)
    parts = named(*networks)
    if "safetensors" in wanted:
        arrays = packing.pack({**parts, **_normalisation(made)})
        files[folder.ARRAYS] = _safetensors(arrays, made)
    if "torch" in wanted:
        files[folder.TORCH] = _safetensors(torch_names.to_torch(parts), made)
    folder.write(path, made._asdict(), files, overwrite=overwrite)
    return path


def require_formats(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """The formats that are asked for; by default `DEFAULT`.

    Raises:
        ExportError: for one that there is not, or whose package is missing.
    """
    words = given.split(",") if isinstance(given, str) else given
    wanted = DEFAULT if words is None else tuple(dict.fromkeys(words))
    for word in wanted:
        if word not in FORMATS:
            raise ExportError(discovery.unknown("format", str(word), FORMATS))
    if not wanted:
        raise ExportError(f"Give at least one format of {', '.join(FORMATS)}.")
    for word in wanted:
        extras.require(FORMATS[word][1], f"The format {word}")
    return wanted


def _program(subject: Subject, networks: tuple[Tree, Tree], digest: str) -> bytes:
    """The client's inference as a portable program."""
    federation, data, choice = subject.federation, subject.data, subject.choice
    algorithm, groups = subject.lowered(program.LOWERING)
    logits = program.inference(
        algorithm,
        descriptions.group_of(groups, choice.client),
        federation.setup.prepare.test,
        networks,
        choice.head,
    )
    example = jax.ShapeDtypeStruct(data.x_train.shape[1:], data.x_train.dtype)
    name = f"client_{choice.client}_round_{subject.state.round}_digest_{digest}"
    return program.serialise(logits, example, name, federation.config.precision)


def _require_agreement(
    content: bytes, examples: np.ndarray, expected: np.ndarray
) -> None:
    """Refuses a program that computes something else than the federation.

    Raises:
        ExportError: for logits that differ by more than rounding.
    """
    found = np.asarray(program.restore(content)(examples))
    known = expected > UNKNOWN
    same = np.array_equal(known, found > UNKNOWN)
    expected, found = expected[known], found[known]
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    if not same or not np.allclose(found, expected, rtol=0, atol=_TOLERANCE * scale):
        raise ExportError(
            "The exported program computes other logits than the federation: does the "
            "network depend on the other examples of its batch, or on something that "
            "changes? Its parameters can be exported with --format safetensors."
        )


def _normalisation(made: Description) -> dict[str, dict[str, np.ndarray]]:
    if not made.mean:
        return {}
    values = {"mean": made.mean, "std": made.std}
    return {
        "normalisation": {
            name: np.asarray(value, np.float32) for name, value in values.items()
        }
    }


def _safetensors(arrays: Mapping[str, np.ndarray], made: Description) -> bytes:
    """The arrays as a safetensors file, with the description as its metadata."""
    import safetensors.numpy

    metadata = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in made._asdict().items()
        if value is not None
    }
    whole = {name: np.array(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(whole, metadata=metadata)


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"fedjax_mrl": __version__}
    for package in ("jax", "jaxlib", "flax", "numpy"):
        found[package] = importlib.metadata.version(package)
    return found
