"""A client of a federation, asked like an exported model."""

from typing import TYPE_CHECKING

import numpy as np

from fedjax_mrl.exporting import description as descriptions
from fedjax_mrl.exporting import subject as subjects
from fedjax_mrl.exporting.loaded import PersonalModel

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation


def of_federation(
    federation: "Federation", client: int | None, head: str | None, point: str
) -> PersonalModel:
    """The personal model of a client of a federation's newest state.

    Raises:
        ValueError: for a client, head or point that there is not.
    """
    choice = descriptions.choose(federation, client, head, point)
    subject = subjects.participant(federation, choice)
    made = descriptions.describe(
        subject,
        run=None,
        digest=None,
        unknown=np.zeros(subject.group.model.num_classes, bool),
        versions={},
    )
    return PersonalModel(made, subject.ask)
