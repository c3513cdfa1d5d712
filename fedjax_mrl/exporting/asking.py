"""A client of a federation, asked like an exported model."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from fedjax_mrl.exporting import description as descriptions
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
    group = descriptions.group_of(federation.groups, choice.client)
    made = descriptions.describe(
        federation,
        choice,
        run=None,
        digest=None,
        unknown=np.zeros(group.model.num_classes, bool),
        versions={},
    )
    ask = functools.partial(
        federation.predict, client=choice.client, head=choice.head, point=choice.point
    )
    return PersonalModel(made, ask)
