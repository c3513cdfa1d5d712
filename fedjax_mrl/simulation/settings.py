"""How rounds are played, and how the programs that play them are made."""

import types
from collections.abc import Mapping
from typing import NamedTuple

from jax.sharding import Mesh

from fedjax_mrl.protocol import Mechanism


class RoundConfig(NamedTuple):
    """How rounds are played.

    Attributes:
        seed: of sampling, shuffling and augmentation.
        cohort_size: K, participants a round.
        epochs: E, local passes over a participant's data.
        batch_size: B.
        init_seed: of initial weights; None is `seed`.
        sweep_batch_size: of passes that train nothing.
        chunk: members of a group computed at once (`mapping.over_members`); 0 is
            those of a usual cohort.
        chunks: of groups by name, where it is another.
        same_start: all clients of an architecture begin with equal weights, as in
            the authors' code.
        client_store: where states lie between rounds (`stores.KINDS`).
        dropout: probability that a participant fails to report: its visit is lost.
        straggler: probability that one completes only a part of its steps.
        reject_nonfinite: leave a participant out of the aggregate, and let it keep
            its state, if anything of its visit is not finite.
        max_upload_norm: with `reject_nonfinite`, also if its upload's norm is
            larger; 0 is no limit.
        inclusion: probability with which each client takes part in a round,
            independently of the others (Poisson sampling); K is then the usual number
            of them. None draws K.
        mechanism: of differential privacy; None without.
    """

    seed: int
    cohort_size: int
    epochs: int
    batch_size: int
    init_seed: int | None = None
    sweep_batch_size: int = 128
    chunk: int = 1
    chunks: Mapping[str, int] = types.MappingProxyType({})
    same_start: bool = True
    client_store: str = "device"
    dropout: float = 0.0
    straggler: float = 0.0
    reject_nonfinite: bool = False
    max_upload_norm: float = 0.0
    inclusion: float | None = None
    mechanism: Mechanism | None = None

    def most(self, num_clients: int) -> int:
        """The largest cohort that there can be, of so many clients."""
        return self.cohort_size if self.inclusion is None else num_clients


class Settings(NamedTuple):
    """How the programs of one group are made.

    Attributes:
        mesh: devices.
        batch_size: B.
        epochs: E.
        sweep_batch_size: of passes that train nothing.
        chunk: members computed at once on a device; 0 is those of a usual cohort.
        cohort_size: K.
        num_clients: N, of the federation.
        keep_sound: a member whose visit is not sound (`visit.sound`) keeps its state.
        max_upload_norm: largest norm of a sound upload; 0 is no limit.
        trials: J, that can be played at once.
    """

    mesh: Mesh
    batch_size: int
    epochs: int
    sweep_batch_size: int
    chunk: int
    cohort_size: int
    num_clients: int
    keep_sound: bool
    max_upload_norm: float
    trials: int = 1


def settings_of(
    config: RoundConfig,
    mesh: Mesh,
    batch_size: int,
    num_clients: int,
    group: str,
    trials: int = 1,
) -> Settings:
    """The settings of a group's programs; B may be below the configuration's."""
    return Settings(
        mesh=mesh,
        batch_size=batch_size,
        epochs=config.epochs,
        sweep_batch_size=config.sweep_batch_size,
        chunk=config.chunks.get(group, config.chunk),
        cohort_size=config.cohort_size,
        num_clients=num_clients,
        keep_sound=config.reject_nonfinite,
        max_upload_norm=config.max_upload_norm if config.reject_nonfinite else 0.0,
        trials=trials,
    )
