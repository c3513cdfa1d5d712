"""What rounds cost: numbers of others, and closed forms."""

import math
import statistics

import pytest

from fedjax_mrl.privacy import account, extra
from fedjax_mrl.privacy.account import Account
from fedjax_mrl.privacy.error import PrivacyError

dp_accounting = pytest.importorskip("dp_accounting")

SLOW = pytest.mark.slow
# 500 rounds at delta = clients^-1.1; computed by dp-accounting 0.6 apart from this.
TABLE = [
    # clients, cohort, noise, fixed (replace one), Poisson (add or remove one)
    (100, 10, 4.0, 3.19, 1.21),
    pytest.param(1000, 50, 1.0, 31.4, 5.68, marks=SLOW),
    pytest.param(10000, 100, 1.0, 9.15, 1.17, marks=SLOW),
]


@pytest.mark.parametrize("clients, cohort, noise, fixed, poisson", TABLE)
def test_epsilons_are_those_of_the_table(clients, cohort, noise, fixed, poisson):
    rate, delta = cohort / clients, clients**-1.1
    of = lambda sampling: Account(3.0, noise, delta, sampling, rate)
    close = lambda value: pytest.approx(value, rel=3e-3)  # its last digit
    assert of("fixed").epsilon(500) == close(fixed)
    assert of("poisson").epsilon(500) == close(poisson)


@SLOW
def test_fixed_cohorts_are_the_accountants_mixture_of_gaussians():
    event = dp_accounting.dp_event.MixtureOfGaussiansDpEvent(4.0, [0, 2], [0.9, 0.1])
    accountant = dp_accounting.pld.PLDAccountant().compose(event, 40)
    expected = accountant.get_epsilon(1e-5)
    found = Account(1.0, 4.0, 1e-5, "fixed", 0.1).epsilon(40)
    assert found == pytest.approx(expected, rel=1e-6)


def delta_of_gaussian(sensitivity, std, epsilon):
    """The exact delta of one Gaussian mechanism (Balle and Wang, 2018)."""
    normal, ratio = statistics.NormalDist(), sensitivity / std
    shifted = lambda sign: normal.cdf(sign * ratio / 2 - epsilon / ratio)
    return shifted(1) - math.exp(epsilon) * shifted(-1)


@pytest.mark.parametrize("sampling, moved", [("fixed", 2), ("poisson", 1)])
@pytest.mark.parametrize("rounds", [1, 9])
def test_with_all_clients_in_every_round_it_is_the_closed_form(sampling, moved, rounds):
    delta = 1e-5
    epsilon = Account(0.3, 5.0, delta, sampling, 1.0).epsilon(rounds)
    exact = lambda e: delta_of_gaussian(moved * math.sqrt(rounds), 5.0, e)
    assert exact(epsilon) == pytest.approx(delta, rel=1e-2)
    assert exact(epsilon * 0.99) > delta


def test_where_epsilon_means_nothing_the_quick_accountant_is_asked():
    found = Account(1.0, 0.1, 1e-5, "fixed", 1.0).spent(400)
    assert found["accountant"] == "RdpAccountant"
    assert found["epsilon"] > 1e4  # 1 / (2 std^2), std of 0.05 / 20


def test_nothing_is_logged_of_orders_that_do_not_matter(caplog):
    assert Account(1.0, 300.0, 1e-5, "fixed", 0.5).epsilon(1) < 0.1
    assert not caplog.records


def test_the_noise_for_an_epsilon_is_just_enough():
    wanted = Account(1.0, 0.0, 1e-5, "poisson", 1.0)
    noise = wanted.noise_for(1.0, rounds=20)
    assert noise == round(noise, 4)
    epsilon = lambda noise: wanted._replace(noise=noise).epsilon(20)
    assert epsilon(noise) <= 1.0 < epsilon(noise - 1e-3)


def test_an_epsilon_that_no_noise_reaches_is_refused():
    with pytest.raises(PrivacyError, match="No noise between"):
        Account(1.0, 0.0, 1e-5, "fixed", 1.0).noise_for(1e-9, rounds=500)


def test_a_summary_says_what_epsilon_depends_on():
    found = Account(1.5, 40.0, 1e-3, "fixed", 1.0).summary(25)
    assert found["relation"] == "replace one client"
    assert found["version"] == extra.version()
    assert found["level"] == "client"
    by_round = found["epsilon_by_round"]
    assert len(by_round) == 10 and by_round["25"] == found["epsilon"]
    assert list(by_round.values()) == sorted(by_round.values())
    assert any("digests" in text for text in found["not_covered"])
    told = account.sentence(found)
    assert "replace one client" in told and "delta 0.001 after 25 rounds" in told


def test_nothing_is_spent_by_no_round_and_by_who_sends_nothing():
    some = Account(1.0, 1.0, 1e-3, "fixed", 1.0)
    assert some.epsilon(0) == 0.0 and some.summary(0)["epsilon_by_round"] == {}
    assert some._replace(releases=False).epsilon(50) == 0.0
    assert some.epsilon(1) > 1
