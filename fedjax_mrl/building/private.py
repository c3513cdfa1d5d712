"""From the option `dp` to the mechanism of the rounds and the account of a run."""

from fedjax_mrl import discovery, references
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import servers
from fedjax_mrl.privacy import extra
from fedjax_mrl.privacy.account import SAMPLINGS, Account
from fedjax_mrl.privacy.error import PrivacyError
from fedjax_mrl.protocol import Algorithm, Mechanism


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


def notes(config: RunConfig) -> tuple[str, ...]:
    """Sentences on what is different with `dp`, for the user."""
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
    return tuple(told)
