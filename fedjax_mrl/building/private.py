"""From the option `dp` to the mechanism of the rounds and the account of a run."""

import math
from typing import NamedTuple

import jax

from fedjax_mrl import discovery, references
from fedjax_mrl.building import visit_flops
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import servers
from fedjax_mrl.privacy import extra
from fedjax_mrl.privacy.account import SAMPLINGS, Account
from fedjax_mrl.privacy.error import PrivacyError
from fedjax_mrl.protocol import Algorithm, Mechanism
from fedjax_mrl.simulation import shapes
from fedjax_mrl.simulation.population import Group

_LOUD = 10  # times the signal; with so much noise what is shared hardly learns


class Noise(NamedTuple):
    """How much noise there is in the mean over a cohort, beside what clients add.

    Attributes:
        mechanism: clipping and noise.
        numbers: d, how many are shared and get noise.
    """

    mechanism: Mechanism
    numbers: int

    @property
    def ratio(self) -> float:
        """The noise's norm as a multiple of the largest signal, `clip`."""
        made = self.mechanism
        return made.noise * math.sqrt(self.numbers) / made.participants

    def __str__(self) -> str:
        made = self.mechanism
        norm = float(f"{self.ratio * made.clip:.2g}")
        return (
            f"norm of about {norm:g} in the mean, beside a signal "
            f"of at most {made.clip:g} ({self.numbers:,} shared numbers, "
            f"{made.participants:g} participants)"
        )


def noise(
    config: RunConfig, algorithm: Algorithm, group: Group, data: Dataset
) -> Noise | None:
    """The noise of a run; None without `dp`, or where nothing is sent."""
    made, release = mechanism(config), algorithm.server.release
    if made is None or release is None or release is servers.NOTHING:
        return None
    client, of = algorithm.client(group.model), shapes.of(algorithm, group.model)
    visit = visit_flops.one_step_visit(data, 1, 1)

    def added(broadcast, private, visit, key):
        upload = client.update(broadcast, private, visit, key).upload
        return release.part(upload, broadcast, made)

    with jax.numpy_dtype_promotion("standard"):
        sums = jax.eval_shape(added, of.broadcast, of.private, visit, of.key)
    return Noise(made, sum(leaf.size for leaf in jax.tree.leaves(sums)))


def mechanism(config: RunConfig) -> Mechanism | None:
    """How sums over clients are made private; None without."""
    asked = config.privacy
    if asked is None or asked.noise is None:
        return None
    expected = rate(config) * config.num_training_clients
    return Mechanism(asked.clip, asked.noise, expected, asked.presence)


def rate(config: RunConfig) -> float:
    """The fraction of clients in a cohort, or each one's probability."""
    if config.sampling == "poisson":
        return config.participation
    return config.cohort_size / config.num_training_clients


def check(config: RunConfig) -> None:
    """Refuses an option `dp` that no method could make good.

    Raises:
        ConfigError: for an epsilon instead of the noise, or an unknown sampling.
        PrivacyError: without the accountant.
    """
    if config.sampling not in SAMPLINGS:
        raise ConfigError(discovery.unknown("sampling", config.sampling, SAMPLINGS))
    asked = config.privacy
    if asked is None:
        return
    extra.require()
    if asked.noise is None:
        raise ConfigError(
            f"--dp epsilon={asked.epsilon:g} is for `fedjax-mrl plan`, which says the "
            "noise that it takes; give that, as in --dp clip=1.0,noise=1.2,delta=1e-5."
        )


def require_given(config: RunConfig, data: Dataset) -> None:
    """Refuses, with `dp`, data of which something was measured without noise.

    Raises:
        PrivacyError: naming what must be given instead.
    """
    if config.privacy is not None and data.measured:
        raise PrivacyError(
            f"--dp needs {' as well as '.join(data.measured)} to be given with the "
            f"data: of {data.name} they were computed from the examples of all "
            "clients, which no noise covers. Put them into the npz file or into "
            "fm.arrays, taken from what is public."
        )


def account(config: RunConfig, algorithm: Algorithm) -> Account | None:
    """The account of a run; None without `dp`.

    Raises:
        PrivacyError: for a method that nobody analysed.
    """
    asked = config.privacy
    if asked is None or asked.noise is None:
        return None
    release = algorithm.server.release
    if release is None:
        raise PrivacyError(
            f"--dp is not for {references.short(config.algorithm)} as it is set: its "
            "server does not say that all it learns of clients are sums that noise can "
            "hide, so no epsilon would be true. Take a method whose server averages or "
            "merges class means, see docs/privacy.md; one of your own says so by "
            "servers.averaging(...) or Server(release=...)."
        )
    releases = release is not servers.NOTHING
    return Account(
        asked.clip, asked.noise, asked.delta, config.sampling, rate(config), releases
    )


def notes(config: RunConfig, found: Noise | None) -> tuple[str, ...]:
    """Sentences on what is different with `dp`, for the user.

    Args:
        config: of the run.
        found: its noise.
    """
    asked = config.privacy
    if asked is None:
        return ()
    told = [
        "With --dp all participants count the same, however many examples they have. "
        "Tables and digests of the run are computed from private data and not covered."
    ]
    told.append(
        "Epsilon is of this run alone: several runs on the same clients add up."
    )
    if config.seed < 2**32:
        told.append(
            f"Whoever guesses --seed, here {config.seed}, can take the noise away "
            "again; for more than a simulation see docs/privacy.md."
        )
    clients = config.num_training_clients
    if asked.delta * clients >= 1:
        told.append(
            f"--dp delta={asked.delta:g} is not below one in {clients} clients: so "
            "large, it allows a run that gives one client away entirely."
        )
    if found is not None and found.ratio > _LOUD:
        told.append(
            f"The noise of --dp has a {found}: training will hardly learn. Let more "
            "clients take part, share a smaller model, or take less noise; see "
            "docs/privacy.md."
        )
    return tuple(told)
