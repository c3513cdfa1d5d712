"""Small federations that tests export clients of."""

import numpy as np

import fedjax_mrl as fm


def features(algorithm, models=("mlp",), **options):
    """Three clients on six features of three classes; not trained."""
    draw = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = draw.normal(size=(60, 6)).astype(np.float32) + y[:, None]
    data = fm.arrays(x[:45], y[:45], x[45:], y[45:], label_names=["ant", "bee", "cat"])
    if algorithm.startswith("fedmrl"):
        options.setdefault("shared_dim", 3)
    made = fm.Federation(
        algorithm=algorithm,
        models=models,
        shared_model="mlp",
        dataset=data,
        feature_dim=8,
        num_clients=3,
        rounds=1,
        **{"partition": "iid"} | options,
    )
    made.state = made.init()
    return made
