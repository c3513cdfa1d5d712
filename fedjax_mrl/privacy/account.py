"""What the rounds of a run cost: epsilon, by an accountant that others have written.

Two runs are neighbours if they differ in one client, and how they do is part of every
epsilon. With cohorts of a fixed size one client is replaced by another, so the sum of
what clients add moves by up to 2 C; with Poisson sampling one is added or removed, and
it moves by up to C. Numbers of the two cannot be compared.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fedjax_mrl.privacy import extra
from fedjax_mrl.privacy.error import PrivacyError

SAMPLINGS = ("fixed", "poisson")
RELATIONS = {"fixed": "replace one client", "poisson": "add or remove one client"}
_SHOWN = 10  # rounds whose epsilon a summary has
_LEAST, _MOST = 0.1, 1e4  # noise that is looked for
_LARGE = 60.0  # epsilon from which on the quicker accountant is asked
_PLD, _RDP = "PLDAccountant", "RdpAccountant"
_OUTSIDE = (
    "whoever knows or guesses the seed, which stands in config.json: the noise can be "
    "drawn again from it and taken away",
    "what a client keeps (its own networks)",
    "tables of accuracies, losses, bytes and participants, and digests, which are "
    "computed from private data",
    "whether the run stopped because a network became non-finite",
    "what is learned from other runs on the same clients, such as a choice of settings",
)
_CURIOUS = (
    "what a client that takes part learns of others: with cohorts of a fixed size the "
    "rounds in which it was drawn tell something of who else was"
)


def _rounded_up(noise: float) -> float:
    return math.ceil(float(noise) * 1e4) / 1e4


class Account(NamedTuple):
    """How the rounds of a run are accounted for.

    Attributes:
        clip: C, the largest norm of what a client adds.
        noise: standard deviation of the noise, as a multiple of C.
        delta: the probability that epsilon may not hold with.
        sampling: `fixed`, cohorts of one size without replacement, or `poisson`, each
            client by itself.
        rate: the fraction of clients in a cohort, or each one's probability.
        releases: whether clients send anything at all.

    Example:
        >>> account = Account(1.0, 2.0, 1e-5, "fixed", 1.0)
        >>> account.relation
        'replace one client'
    """

    clip: float
    noise: float
    delta: float
    sampling: str
    rate: float
    releases: bool = True

    @property
    def relation(self) -> str:
        """How neighbours differ."""
        return RELATIONS[self.sampling]

    def epsilon(self, rounds: int) -> float:
        """Epsilon of so many rounds at `delta`.

        Raises:
            PrivacyError: without an accountant.
        """
        if not rounds or not self.releases:
            return 0.0
        return self._spent(rounds)[0]

    def noise_for(self, epsilon: float, rounds: int) -> float:
        """The least noise with which so many rounds cost at most `epsilon`.

        Raises:
            PrivacyError: without an accountant, or if no noise is enough.
        """
        dp = extra.accounting()

        def least(accountant: Any, low: float, high: float) -> float:
            event = lambda noise: dp.SelfComposedDpEvent(
                *self._event(dp, noise, max(rounds, 1))
            )
            bracket = dp.ExplicitBracketInterval(low, high)
            return dp.calibrate_dp_mechanism(
                accountant, event, epsilon, self.delta, bracket, tol=1e-4
            )

        try:  # roughly first: the better accountant is slow where there is no privacy
            with extra.quiet():
                rough = least(dp.rdp.RdpAccountant, _LEAST, _MOST)
            if epsilon > _LARGE:
                return _rounded_up(rough)
            return _rounded_up(least(dp.pld.PLDAccountant, rough / 2, rough))
        except Exception as error:  # of several modules, and bare ValueErrors
            reason = " ".join(str(error).split())[:200]
            raise PrivacyError(
                f"No noise between {_LEAST:g} and {_MOST:g} makes {rounds} rounds cost "
                f"epsilon {epsilon:g} at delta {self.delta:g} ({reason}). Ask for "
                "another epsilon, or fewer rounds or participants."
            ) from None

    def spent(self, rounds: int) -> dict[str, Any]:
        """Epsilon of so many rounds, with all that it depends on.

        Raises:
            PrivacyError: without an accountant.
        """
        epsilon, accountant = self._spent(rounds)
        return {
            "epsilon": epsilon,
            "delta": self.delta,
            "rounds": rounds,
            "level": "client",
            "relation": self.relation,
            "sampling": self.sampling,
            "rate": self.rate,
            "noise": self.noise,
            "clip": self.clip,
            "accountant": accountant,
            "version": extra.version(),
        }

    def summary(self, rounds: int) -> dict[str, Any]:
        """What summary.json says of so many rounds.

        Beside the epsilon of all of them, that after some earlier ones, at most ten in
        all; and what it does not cover.
        """
        steps = min(rounds, _SHOWN)
        earlier = sorted({round(rounds * i / steps) for i in range(1, steps)})
        found = self.spent(rounds)
        by_round = {str(number): self.epsilon(number) for number in earlier}
        if rounds:
            by_round[str(rounds)] = found["epsilon"]
        sampled = self.sampling == "fixed" and self.rate < 1
        outside = [*_OUTSIDE, *[_CURIOUS] * sampled]
        return {**found, "epsilon_by_round": by_round, "not_covered": outside}

    def _spent(self, rounds: int) -> tuple[float, str]:
        """Epsilon of so many rounds, and the accountant that says so.

        Two bounds that are both true; the tighter one takes minutes and gigabytes where
        epsilon is so large that it means nothing.
        """
        if not rounds or not self.releases:
            return 0.0, _PLD
        dp = extra.accounting()
        event = self._event(dp, self.noise, rounds)
        of = lambda accountant: float(
            accountant.compose(*event).get_epsilon(self.delta)
        )
        with extra.quiet():
            rough = of(dp.rdp.RdpAccountant())
        if rough > _LARGE:
            return rough, _RDP
        return of(dp.pld.PLDAccountant()), _PLD

    def _event(self, dp: Any, noise: float, rounds: int) -> tuple[Any, int]:
        """An event and how often it happens in so many rounds."""
        # Replacing a client moves a sum by 2 C, and no accountant doubles it. With
        # sampling that is a mixture of Gaussians at 0 and 2, which is the same as
        # Poisson sampling of one at half the noise, and much faster to compute so.
        std = noise / 2 if self.sampling == "fixed" else noise
        if self.rate >= 1:  # so many Gaussians are together exactly one
            return dp.GaussianDpEvent(std / math.sqrt(rounds)), 1
        one = dp.GaussianDpEvent(std)
        return dp.PoissonSampledDpEvent(self.rate, one), rounds


def sentence(spent: Mapping[str, Any]) -> str:
    """What `Account.spent` found, for people."""
    return (
        f"epsilon {spent['epsilon']:.4g} at delta {spent['delta']:g} after "
        f"{spent['rounds']} rounds (to {spent['relation']}; {spent['sampling']} "
        f"sampling of {spent['rate']:.3g} of the clients; noise {spent['noise']:g} x "
        f"clip {spent['clip']:g}; {spent['accountant']}, dp-accounting "
        f"{spent['version']})"
    )
