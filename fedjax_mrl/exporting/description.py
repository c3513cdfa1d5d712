"""The description of an exported model: what it takes, what it tells apart, whence."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.exporting.error import ExportError
from fedjax_mrl.simulation import prediction
from fedjax_mrl.simulation.evaluation import POINTS
from fedjax_mrl.simulation.population import Group

if TYPE_CHECKING:
    from fedjax_mrl.exporting.subject import Subject
    from fedjax_mrl.trained import Trained


# What examples of each kind are stored as; images that are prepared are floats.
_TYPES = {
    "images": ("uint8", "float32"),
    "features": ("float32",),
    "tokens": ("int32",),
}


class Choice(NamedTuple):
    """One way in which one client of a federation infers."""

    client: int
    head: str
    point: str


class Description(NamedTuple):
    """The values of model.json.

    Attributes:
        algorithm: its name.
        client: the number.
        architecture: the name of its model.
        head: the inference mode.
        point: "local" or "global".
        kind: "images", "features" or "tokens".
        shape: of one example as it is stored.
        dtype: likewise.
        mean: of each channel, of pixel / 255, by which images are normalised; () if
            examples are used as they are.
        std: the standard deviation, likewise.
        classes: the name of each logit.
        unknown_classes: those that the head knows nothing of.
        dataset: the name of what it was trained on.
        seed: of the training.
        run: where the run lay, if it did.
        round: of which the state is.
        digest: the SHA-256 of that round's state.
        versions: of packages, by name.
        newcomer: how it was trained, if it came after that round: what became of the
            shared part, epochs, learning rate, number of training examples, and the
            file of its data, if it came from outside with one.
    """

    algorithm: str
    client: int
    architecture: str
    head: str
    point: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    unknown_classes: tuple[str, ...]
    dataset: str
    seed: int
    run: str | None
    round: int
    digest: str | None
    versions: dict[str, str | None]
    newcomer: dict[str, Any] | None = None

    @property
    def stored(self) -> Dataset:
        """A data set of such examples, without any, to check new ones against."""
        x = np.zeros((0, *self.shape), self.dtype)
        y = np.zeros(0, np.int32)
        raw = "raw" if self.raw else "none"
        names = self.dataset, x, y, x, y, self.classes
        return Dataset(*names, self.mean, self.std, raw, self.kind)

    @property
    def raw(self) -> bool:
        """Whether images are prepared already, and so floats."""
        return self.kind == "images" and self.dtype != "uint8"


def choose(
    federation: "Trained", client: object, head: str | None, point: str
) -> Choice:
    """Checks what is to be exported.

    Raises:
        ValueError: for a client, head or point that there is not, or a client that was
            held out.
    """
    heads = federation.algorithm.heads
    head = heads[0] if head is None else head
    prediction.require_known("head", head, heads)
    prediction.require_known("point", point, POINTS)
    number = federation.taking_part(client)
    if not prediction.is_whole(client) or not 0 <= client < number:
        got = "none was given" if client is None else f"got {client!r}"
        raise ExportError(
            f"Say whose model with a client's number from 0 to {number - 1}, as "
            f"client=0 or --client 0; {got}."
        )
    return Choice(int(client), head, point)


def describe(
    subject: "Subject",
    *,
    run: str | None,
    digest: str | None,
    unknown: np.ndarray,
    versions: Mapping[str, str | None],
) -> Description:
    """Describes a client.

    Args:
        subject: who.
        run: where the run lies.
        digest: of the state.
        unknown: whether the head knows nothing of a class, bool [L].
        versions: of packages.
    """
    choice, data, config = subject.choice, subject.data, subject.federation.config
    classes = class_names(subject.group, data.label_names)
    normalised = data.kind == "images" and data.x_train.dtype == np.uint8
    return Description(
        config.algorithm,
        choice.client,
        subject.group.name,
        choice.head,
        choice.point,
        data.kind,
        tuple(map(int, data.x_train.shape[1:])),
        str(data.x_train.dtype),
        tuple(map(float, data.mean)) if normalised else (),
        tuple(map(float, data.std)) if normalised else (),
        classes,
        tuple(name for name, lost in zip(classes, unknown, strict=True) if lost),
        config.dataset,
        config.seed,
        run,
        subject.state.round,
        digest,
        dict(versions),
        subject.newcomer,
    )


def group_of(groups: Sequence[Group], client: int) -> Group:
    """The group of a client."""
    return next(group for group in groups if client in group.clients)


def class_names(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    """The names of a client's classes: of a task's, where one class of the data is it.

    Other classes of a task have numbers.
    """
    if group.labels is None:
        return tuple(map(str, names))
    of = [np.flatnonzero(group.labels == c) for c in range(group.model.num_classes)]
    if all(members.size == 1 for members in of):
        return tuple(str(names[members[0]]) for members in of)
    return tuple(map(str, range(len(of))))


def parse(found: Mapping[str, Any], where: object) -> Description:
    """The description that a model.json holds.

    Raises:
        ExportError: if a value is missing or none that can be used.
    """
    later = Description._field_defaults  # of what earlier versions did not write
    found = {**later, **found}
    missing = [name for name in Description._fields if name not in found]
    if missing:
        raise ExportError(f"{where} lacks {', '.join(missing[:3])}; export it again.")
    values = {name: found[name] for name in Description._fields}
    try:
        for name in ("shape", "mean", "std", "classes", "unknown_classes"):
            values[name] = tuple(values[name])
        made = Description(**values)
        names = (*made.classes, *made.unknown_classes)
        sound = made.dtype in _TYPES.get(made.kind, ()) and made.classes
        sound = sound and all(isinstance(name, str) for name in names)
        if sound and made.stored.x_train.shape[1:] == made.shape:
            return made
    except (TypeError, ValueError):
        pass
    raise ExportError(
        f"{where} is damaged: its values do not fit together. Export it again."
    )


def require_known_classes(choice: Choice, unknown: np.ndarray) -> None:
    """Refuses a head that cannot tell any class.

    Raises:
        ExportError: if all classes are unknown to it.
    """
    if unknown.all():
        raise ExportError(
            f"The head {choice.head} of client {choice.client} knows no class yet: the "
            "client holds what the server sent before any client had trained. Choose "
            "--point global or another --head."
        )
