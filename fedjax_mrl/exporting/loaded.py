"""An exported model, ready to be asked."""

import os

import jax
import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl.data import own
from fedjax_mrl.exporting import description as descriptions
from fedjax_mrl.exporting import extras, folder, likelihood, program
from fedjax_mrl.exporting.description import Description
from fedjax_mrl.exporting.error import ExportError
from fedjax_mrl.exporting.program import Logits
from fedjax_mrl.simulation import prediction


class PersonalModel:
    """One client's model, which knows the names of its classes and what it takes.

    Args:
        description: of it.
        logits: examples [B, ...] as stored -> logits [B, L].

    Attributes:
        description: where it comes from and what it takes.
    """

    def __init__(self, description: Description, logits: Logits) -> None:
        self.description, self._logits = description, logits

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.description.classes

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Logits of examples, as `Federation.predict` of this client returns them.

        Args:
            x: examples [B, ...] as they are stored (images uint8 and not normalised),
                or a single one.

        Returns:
            Logits [B, L]; without B for a single example.

        Raises:
            ValueError: for examples of another shape or type.
        """
        stored = self.description.stored
        several, single = own.like(stored, x, stored.augmentation)
        logits = prediction.in_blocks(self._logits, several)
        return logits[0] if single else logits

    def probabilities(self, x: ArrayLike) -> np.ndarray:
        """Probabilities of the classes, see `likelihood.probabilities`.

        Args:
            x: as of `predict`.

        Returns:
            float64 [B, L]; without B for a single example.

        Raises:
            ValueError: as `predict`, and for logits that are not finite.
        """
        logits = self.predict(x)
        found = likelihood.probabilities(logits[None] if logits.ndim == 1 else logits)
        return found[0] if logits.ndim == 1 else found

    def __repr__(self) -> str:
        it = self.description
        size = ", ".join(map(str, it.shape))
        return (
            f"PersonalModel(client {it.client}, {it.architecture}, {it.algorithm} "
            f"{it.head}, round {it.round}: {it.kind} [{size}] -> {len(it.classes)} "
            "classes)"
        )


def load_model(path: str | os.PathLike) -> PersonalModel:
    """Loads a model that `fedjax-mrl export` or `Federation.export` wrote.

    Args:
        path: the folder.

    Returns:
        The model, on the device that JAX computes on here.

    Raises:
        ExportError: if there is none, it is damaged, or it was exported without the
            format jax.

    Example:
        >>> import tempfile
        >>> import fedjax_mrl as fm
        >>> federation = fm.Federation(
        ...     algorithm="standalone", models=("mlp",), num_clients=5, rounds=1
        ... )
        >>> _ = federation.fit()
        >>> folder = federation.export(tempfile.mkdtemp() + "/model", client=3)
        >>> model = fm.load_model(folder)
        >>> image = federation.dataset.x_test[0]
        >>> model.predict(image).shape, model.classes[3]
        ((10,), '3')
        >>> print(round(model.probabilities(image).sum(), 6))
        1.0
    """
    where, found = folder.read(path)
    made = descriptions.parse(found, where / folder.DESCRIPTION)
    content = folder.content(where, found, folder.PROGRAM)
    extras.require("flatbuffers", "Reading an exported program")
    logits = program.restore(content)
    _require_fit(made, logits)
    return PersonalModel(made, logits)


def _require_fit(made: Description, logits: Logits) -> None:
    """Refuses a program that is not what is described, or cannot be compiled here."""
    one = jax.ShapeDtypeStruct((1, *made.shape), made.dtype)
    try:
        shape = jax.eval_shape(logits, one).shape
        jax.jit(logits).lower(one)
    except (TypeError, ValueError):
        shape = ()
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"{folder.PROGRAM} cannot be read ({reason}): it was exported with jax "
            f"{made.versions.get('jax')}, and this is {jax.__version__}. JAX reads "
            "programs of earlier versions; install a newer one, or export the model "
            "again with this one."
        ) from error
    if shape != (1, len(made.classes)):
        raise ExportError(
            f"{folder.DESCRIPTION} does not fit {folder.PROGRAM}: another shape, type "
            "or number of classes. Export the model again."
        )
