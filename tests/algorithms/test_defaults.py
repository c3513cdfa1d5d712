"""Hyper-parameters that nobody sets are those of the methods' papers or codes."""

import pytest

from fedjax_mrl import algorithms

EXPECTED = {
    "fd": {"weight": 1.0},
    # A step of 1e-3, ten passes, and the authors' uniform average.
    "fedapen": {"adapt_rate": 1e-3, "adapt_steps": 10, "aggregation": "uniform"},
    "fedavg": {},
    "fedgen": {
        "weight": 1.0,
        "diversity_weight": 1.0,
        "noise_dim": 64,
        "hidden_dim": 512,
        "server_lr": 3e-4,
        "server_steps": 50,
        "server_batch_size": 32,
    },
    "fedgh": {"server_lr": 0.05, "server_epochs": 2, "server_batch_size": 8},
    # The kept energy grows from 0.95 to 0.98; nothing is detached in the authors' code.
    "fedkd": {
        "energy_start": 0.95,
        "energy_end": 0.98,
        "detach": False,
        "aggregation": "uniform",
    },
    # Both losses weigh the same.
    "fedmrl": {
        "shared_dim": 100,
        "coarse_weight": 1.0,
        "fine_weight": 1.0,
        "aggregation": "mean",
        "readout": "nested",
    },
    # As `fedmrl`; the library of which it is the FedMRL trains and forgets.
    "fedmrl_frozen_projector": {
        "shared_dim": 100,
        "coarse_weight": 1.0,
        "fine_weight": 1.0,
        "aggregation": "mean",
        "projector": "forgotten",
    },
    "fedmrl_last_client": {
        "shared_dim": 100,
        "coarse_weight": 1.0,
        "fine_weight": 1.0,
    },
    "fedmrl_no_mrl": {"shared_dim": 100, "fine_weight": 1.0, "aggregation": "mean"},
    "fedmrl_no_mrl_full": {
        "shared_dim": 100,
        "coarse_weight": 1.0,
        "fine_weight": 1.0,
        "aggregation": "mean",
    },
    "fedproto": {"weight": 1.0},
    "fedprox": {"mu": 0.01},
    "fedtgp": {
        "weight": 10.0,
        "max_margin": 100.0,
        "server_lr": 0.01,
        "server_epochs": 100,
        "server_batch_size": 10,
    },
    # With 1, as in a library, nothing would be learnt from the other model.
    "fml": {"alpha": 0.5, "beta": 0.5, "aggregation": "uniform", "share": "network"},
    "lg_fedavg": {},
    "standalone": {},
}


@pytest.mark.parametrize("name", algorithms.names())
def test_the_defaults_of_a_method_are_known(name):
    assert algorithms.hyperparameters(name) == EXPECTED[name]
