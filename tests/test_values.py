"""Users' own methods, networks and data, where a configuration has names."""

import csv
import pathlib
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import fedjax_mrl as fm
from fedjax_mrl import algorithms, references
from fedjax_mrl.cli.main import main
from fedjax_mrl.models import mlp
from tests.helpers import assert_trees_equal, methods

D = 6  # width of all representations


class Tokens(nn.Module):
    """Embeds tokens and averages them; can be made at any width."""

    feature_dim: int = D

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Embed(7, self.feature_dim)(x).mean(axis=1)
        return nn.Dropout(0.3, deterministic=not train)(x)


class Attention(nnx.Module):
    """A transformer's block on tokens, with dropout."""

    def __init__(self, rngs, feature_dim=D):
        self.embed = nnx.Embed(7, feature_dim, rngs=rngs)
        self.block = nnx.MultiHeadAttention(
            2, feature_dim, decode=False, rngs=rngs, dropout_rate=0.0
        )
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        h = self.embed(x)
        return self.drop(h + self.block(h)).mean(axis=1)


class Whole(nn.Module):
    """A linen module with its own head, which is not linear."""

    num_classes: int

    def setup(self):
        self.first, self.second = nn.Dense(5), nn.Dense(self.num_classes)

    def features(self, x):
        return nn.tanh(self.first(x.reshape(len(x), -1)))

    def head(self, h):
        return self.second(nn.relu(h))


def tokens(num=60, seed=0):
    draw = np.random.default_rng(seed)
    y = np.arange(num) % 3
    x = (draw.integers(0, 4, (num, 5)) + y[:, None]).astype(np.int64)
    return fm.arrays(x, y, x[: num // 2], y[: num // 2], name="sequences")


def features(num=60):
    draw = np.random.default_rng(1)
    y = np.arange(num) % 3
    x = draw.normal(size=(num, 4)) + y[:, None]
    return fm.arrays(x, y, x[: num // 2], y[: num // 2])


def small(**options):
    settings = {"num_clients": 4, "partition": "iid", "rounds": 1, "batch_size": 8}
    return fm.Federation(**{**settings, **options})


@pytest.mark.parametrize("name", methods())
def test_every_method_trains_own_networks_on_tokens(name):
    one = fm.model(Tokens())
    two = fm.model(Attention, feature_dim=D)
    alike = name in ("fedavg", "fedprox")
    options = {"shared_dim": 4} if name.startswith("fedmrl") else {}
    federation = small(
        algorithm=name,
        models=[one] if alike else [one, two],
        shared_model=one,
        dataset=tokens(),
        **options,
    )
    names = [group.name for group in federation.groups]
    assert names == (["Tokens"] if alike else ["Tokens", "Attention"])
    before = federation.evaluate(federation.init())
    federation.fit()
    after = federation.evaluate()
    assert np.isfinite(after.loss_sum).all()
    assert (after.loss_sum != before.loss_sum).any()
    x = federation.dataset.x_test[:3]
    for client in (0, 1):
        logits = federation.predict(x, client=client)
        assert logits.shape == (3, 3)
        np.testing.assert_array_equal(logits, federation.predict(x, client=client))


def test_a_shared_network_needs_no_linear_head():
    federation = small(
        models=[Whole], shared_model=Whole(3), dataset=features(), shared_dim=5
    )
    federation.fit()
    assert federation.networks(1)["shared"].header["second"]["kernel"].shape == (5, 3)


@pytest.mark.slow
def test_features_and_images_take_the_same_methods():
    federation = small(
        algorithm="fml", models=["mlp", Whole(3)], shared_model="mlp",
        dataset=features(), feature_dim=5,
    )  # fmt: skip
    federation.fit()
    assert federation.predict(np.zeros(4), client=1).shape == (3,)
    with pytest.raises(ValueError, match=r"x must be features \[4\].*is \[2, 3\]"):
        federation.predict(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="is for images"):
        small(dataset=features(), models=("mlp",), augmentation="flip_erase_crop")
    with pytest.raises(ValueError, match=r"cnn1 needs images .* got \(4,\).*mlp"):
        small(dataset=features())
    with pytest.raises(ValueError, match=r"mlp needs images or features.*tokens"):
        small(dataset=tokens(), models=("mlp",), shared_model="mlp")


def test_dropout_follows_client_and_step_and_not_what_is_beside():
    make = lambda **options: small(
        algorithm="standalone", models=[fm.model(Tokens())], shared_model="mlp",
        dataset=features() if "dataset" in options else tokens(), **options,
    )  # fmt: skip
    one, again, other = make(), make(chunk=2), make(seed=1, init_seed=0)
    for federation in (one, again, other):
        federation.fit()
    loss = lambda federation: federation.evaluate().loss_sum
    np.testing.assert_allclose(loss(one), loss(again), rtol=1e-5)
    assert (loss(one) != loss(other)).any()


class Quiet(nn.Module):
    """Like `Tokens`, without dropout."""

    feature_dim: int = D

    @nn.compact
    def __call__(self, x):
        return nn.Embed(7, self.feature_dim, name="Embed_0")(x).mean(axis=1)


def test_dropout_acts_in_training_only():
    trained = []
    for network in (Tokens(), Quiet()):
        federation = small(
            algorithm="standalone", models=[fm.model(network)],
            shared_model=fm.model(Quiet()), dataset=tokens(),
        )  # fmt: skip
        state = federation.init()
        trained.append((federation.evaluate(state), federation.fit()))
        trained[-1] += (federation.evaluate(),)
    (first, _, after), (quiet_first, _, quiet_after) = trained
    np.testing.assert_array_equal(first.loss_sum, quiet_first.loss_sum)
    assert (after.loss_sum != quiet_after.loss_sum).any()


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(use_running_average=not train)(x)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([fm.model(Norm())], "Norm keeps batch_stats.*GroupNorm"),
        ([nn.Dense(3)], "give it methods features.*fm.model"),
        ([3], "A model must be a name.*got 3"),
        ([fm.model(nn.Dense(4), nn.Dense(2))], r"logits \[B, 3\].*yields \[2, 2\]"),
        ([fm.model(nn.Embed(3, 4))], "cannot work on inputs float32 .2, 4."),
        ([Whole(2)], r"logits \[B, 3\]"),
        (
            [fm.model(nn.Dense(4), nn.Dense(3, param_dtype=jnp.float16))],
            r"weights of Dense must be float32, but header\.bias is float16",
        ),
        (
            [fm.model(nn.Dense(4, param_dtype=jnp.bfloat16))],
            r"weights of Dense must be float32, but bias is bfloat16",
        ),
        ([mlp.mlp((4,), 5)], "must tell 3 classes apart.*has num_classes 5"),
        (["nowhere.py:Net"], "nowhere.py' cannot be read: No such file"),
        (["no.such.module:Net"], "cannot be imported: ModuleNotFoundError"),
        (["fedjax_mrl.models.mlp:mlpp"], "no name 'mlpp'. Did you mean 'mlp'"),
    ],
)
def test_a_network_that_cannot_work_is_refused_with_the_reason(models, words):
    with pytest.raises(ValueError, match=words) as caught:
        small(models=models, shared_model="mlp", dataset=features())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["lg_fedavg", "fedgh", "fedgen"])
def test_a_header_that_all_share_must_fit_every_network(algorithm):
    options = {"algorithm": algorithm, "dataset": features(), "feature_dim": 5}
    with pytest.raises(ValueError, match=r"header .* like that of the shared model"):
        small(models=[Whole(3)], shared_model="mlp", **options)
    assert len(small(models=[Whole(3)], shared_model=Whole(3), **options).fit()) == 1


def test_a_header_of_both_views_needs_none_of_the_shared_network():
    built = small(
        algorithm="fedmrl_no_mrl_full", models=["mlp"], shared_model=Whole(3),
        dataset=features(), shared_dim=5, feature_dim=8,
    )  # fmt: skip
    assert len(built.fit()) == 1


def test_widths_that_do_not_fit_say_what_to_set():
    with pytest.raises(ValueError, match=r"width 100 is asked of Whole.*shared_dim=5"):
        small(models=[Whole(3)], shared_model=Whole(3), dataset=features())


def test_equal_networks_are_one_group_and_others_have_names_of_their_own():
    federation = small(
        algorithm="standalone", shared_model="mlp", dataset=tokens(), num_clients=5,
        models=[fm.model(Tokens()), fm.model(Tokens()), fm.model(Tokens(4))],
    )  # fmt: skip
    assert [group.name for group in federation.groups] == ["Tokens", "Tokens-2"]
    assert federation.groups[0].clients.tolist() == [0, 1, 3, 4]
    wide = mlp.mlp((4,), 3, hidden=9)
    federation = small(models=[wide, "mlp"], shared_model="mlp", dataset=features())
    assert [group.name for group in federation.groups] == ["mlp-2", "mlp"]


def fedhalf(setup, *, share: float = 0.5):
    """Averages, and keeps a share of the old model."""
    base = algorithms.get("fedavg")(setup)

    def update(state, uploads, cohort):
        new = base.server.update(state, uploads, cohort)
        return jax.tree.map(lambda a, b: share * a + (1 - share) * b, state, new)

    return base._replace(server=base.server._replace(update=update))


def test_a_method_is_a_function_with_its_hyper_parameters():
    make = lambda method, **settings: small(
        algorithm=method, models=("mlp",), shared_model="mlp", dataset=features(),
        set=settings,
    )  # fmt: skip
    all_new = make(fedhalf, **{"algorithm.share": 0})
    plain, none_new = make("fedavg"), make(fedhalf, **{"algorithm.share": 1.0})
    start = none_new.init()
    kept = jax.tree.map(np.array, jax.device_get(start.server))
    for federation in (all_new, plain):
        federation.fit()
    assert_trees_equal(all_new.state.server, plain.state.server)
    assert_trees_equal(none_new.play(start)[0].server, kept)
    with pytest.raises(ValueError, match="hyper-parameter of fedhalf 'shar'"):
        make(fedhalf, **{"algorithm.shar": 1})

    def fedavg(setup):
        return algorithms.get("fedavg")(setup)

    with pytest.raises(ValueError, match="called fedavg, as one of this library"):
        make(fedavg)
    with pytest.raises(ValueError, match=r"must return .*Algorithm.*returned int"):
        make(lambda setup: 3)
    with pytest.raises(ValueError, match=r"algorithm must be a name.*got 3"):
        make(3)


def changed(**changes):
    """Standalone with another client function."""

    def method(setup):
        base = algorithms.get("standalone")(setup)

        def client(model):
            made = base.client(model)
            parts = {name: wrap(getattr(made, name)) for name, wrap in changes.items()}
            return made._replace(**parts)

        return base._replace(client=client)

    return method


def after(change):
    return lambda update: lambda *given: change(update(*given))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"update": after(lambda out: out._replace(metrics={"mine": 0.0}))},
            'metrics of update of method for mlp must have a "total"',
        ),
        (
            {"update": after(lambda out: out._replace(state=(out.state, 1.0)))},
            "state of update of method for mlp must be built as Client.init makes it",
        ),
        (
            {"update": after(lambda out: out._replace(shared=jnp.zeros(3)))},
            "shared of update of method for mlp must be built as Server.broadcast",
        ),
        (
            {"predict": after(lambda heads: {"other": heads["local"]})},
            "predict of method must return logits for the heads .*local; it .*other",
        ),
    ],
)
def test_a_method_that_breaks_the_protocol_is_refused_before_training(changes, words):
    with pytest.raises(ValueError, match=words):
        small(
            algorithm=changed(**changes), models=("mlp",), shared_model="mlp",
            dataset=features(),
        )  # fmt: skip


def test_a_hyper_parameter_as_an_option_is_told_where_it_belongs():
    with pytest.raises(ValueError, match=r'set=\{"algorithm\.alpha": 0\.3\}'):
        small(algorithm="fml", alpha=0.3)


@pytest.mark.slow
def test_nnx_classes_are_made_at_any_width_and_tokens_out_of_range_are_named():
    federation = small(
        models=[fm.model(Attention)], shared_model=fm.model(Attention),
        dataset=tokens(), shared_dim=4,
    )  # fmt: skip
    assert federation.fit().last_round == 1
    far = tokens()._replace(x_train=tokens().x_train + 9)
    with pytest.raises(fm.Diverged, match="Tokens go up to 14; more than an embedding"):
        small(
            algorithm="standalone", models=[fm.model(Quiet())],
            shared_model=fm.model(Quiet()), dataset=far,
        ).fit()  # fmt: skip


@pytest.mark.slow
def test_clients_may_have_tasks_of_their_own():
    tasks = {"which": [0, 1, 2], "first": [1, 0, 0]}
    federation = small(
        algorithm="fml", models=[lambda shape, classes: mlp.mlp(shape, classes)],
        shared_model="mlp", dataset=features(), tasks=tasks,
        set={"algorithm.share": "extractor"},
    )  # fmt: skip
    named = {
        g.name: (g.clients.tolist(), g.model.num_classes) for g in federation.groups
    }
    (one, two) = named
    assert named[one] == ([0, 2], 3) and named[two] == ([1, 3], 2)
    assert one.endswith("@which") and two.endswith("@first")
    federation.fit()
    x = np.zeros((2, 4))
    assert federation.predict(x, client=0).shape == (2, 3)
    assert federation.predict(x, client=1).shape == (2, 2)
    for wrong in ({"a": [0, 1]}, {"a": [0, 0, 0]}, {"a": [0, 1, -1]}, {}):
        with pytest.raises(ValueError, match="tasks"):
            small(models=("mlp",), dataset=features(), tasks=wrong)


CODE = '''
"""Own code for a command line."""
from flax import linen as nn

from beside import WIDTH
from fedjax_mrl import algorithms


class Net(nn.Module):
    num_classes: int

    def setup(self):
        self.first, self.second = nn.Dense(WIDTH), nn.Dense(self.num_classes)

    def features(self, x):
        return nn.relu(self.first(x.reshape(len(x), -1)))

    def head(self, h):
        return self.second(h)


def fedmine(setup, *, weight: float = 1.0):
    return algorithms.get("standalone")(setup)
'''


@pytest.mark.slow
def test_tasks_stay_with_a_saved_run(tmp_path):
    tasks = {"b-c": [0, 1, 2], "c": [2, 1, 0]}
    federation = small(
        algorithm="standalone", models=["mlp", Whole], shared_model="mlp",
        dataset=features(), tasks=tasks,
    )  # fmt: skip
    assert len({group.name for group in federation.groups}) == 2
    federation.fit()
    federation.save(tmp_path / "a")
    found = fm.load(tmp_path / "a", dataset=features())
    assert [g.name for g in found.groups] == [g.name for g in federation.groups]
    for ours, theirs in zip(federation.groups, found.groups, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(
        found.evaluate().correct, federation.evaluate().correct
    )


@pytest.mark.parametrize("name", ["fedmrl", "fedproto", "lg_fedavg", "fedkd", "fml"])
def test_tasks_are_refused_where_something_about_classes_travels(name):
    with pytest.raises(ValueError, match=r"share nothing that is about classes"):
        small(
            algorithm=name, models=("mlp",), shared_model="mlp", dataset=features(),
            tasks={"a": [0, 1, 2], "b": [2, 1, 0]},
        )  # fmt: skip


class Told(nnx.Module):
    """An nnx module that is told whether it trains."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, D, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train=True):
        return self.drop(self.layer(x), deterministic=not train)


class Tied(nnx.Module):
    """Its halves have a layer in common."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.head = nnx.Sequential(self.layer, nnx.Linear(4, 3, rngs=rngs))

    def features(self, x):
        return nnx.relu(self.layer(x))


class LinenTied(nn.Module):
    """Likewise."""

    def setup(self):
        self.layer, self.last = nn.Dense(4), nn.Dense(3)

    def features(self, x):
        return self.layer(x)

    def head(self, h):
        return self.last(self.layer(h))


def test_nnx_calls_are_told_when_they_train():
    federation = small(
        algorithm="standalone", models=[fm.model(Told)], shared_model="mlp",
        dataset=features(), batch_size=60, epochs=1,
    )  # fmt: skip
    model = federation.groups[0].model
    network = model.init(jax.random.key(0))
    x = jnp.ones((2, 4))
    np.testing.assert_array_equal(*model.logits(network, x))  # equal rows, no dropout
    one, other = (model.training(jax.random.key(k)).logits(network, x) for k in (1, 2))
    assert (one != other).any()


@pytest.mark.parametrize("network", [Tied, LinenTied()])
def test_halves_with_a_common_layer_are_refused(network):
    with pytest.raises(ValueError, match=r"must have no layer in"):
        small(models=[network], shared_model="mlp", dataset=features())


@pytest.mark.parametrize("head", [nn.Embed(3, 3), (lambda k, h: {}, lambda p, h: None)])
def test_a_head_that_fails_is_answered_in_a_sentence(head):
    with pytest.raises(ValueError, match=r"head of Whole|head of own|head of Dense"):
        small(
            models=[fm.model(nn.Dense(5), head)], shared_model="mlp", dataset=features()
        )


def test_wrong_arguments_are_answered_in_sentences():
    federation = small(models=("mlp",), shared_model="mlp", dataset=features())
    for wrong in ("3", 2.5, -1):
        with pytest.raises(ValueError, match="rounds must be a whole number from 0"):
            federation.fit(rounds=wrong)
    with pytest.raises(ValueError, match="There is no option 'foo'"):
        federation.with_settings(foo=1)
    with pytest.raises(ValueError, match="The first argument is a RunConfig"):
        fm.Federation("fedmrl")
    with pytest.raises(ValueError, match="tasks must be a dictionary"):
        small(models=("mlp",), dataset=features(), tasks=[0, 1, 2])
    for seeds in (3, ()):
        with pytest.raises(ValueError, match="seeds must be a list"):
            fm.compare(["fml"], seeds=seeds)
    for given in ("fml", 3, ()):
        with pytest.raises(ValueError, match="algorithms must be a list"):
            fm.compare(given)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder with own code, in which the command line is."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    data = features()
    np.savez(tmp_path / "data.npz", **{n: getattr(data, n) for n in
             ("x_train", "y_train", "x_test", "y_test")})  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_line_takes_files_of_code_and_data(code, monkeypatch, capsys):
    flags = ["--models", "mine.py:Net,mlp", "--shared-model", "mlp", "--quiet"]
    flags += ["--num-clients", "4", "--partition", "iid", "--dataset", "data.npz"]
    assert main(["run", "--algorithm", "mine.py:fedmine", *flags, "--rounds", "1"]) == 0
    run = code / "runs" / "fedmine-data-0"
    rows = read(run / "clients.csv")
    assert {row["architecture"] for row in rows} == {"Net", "mlp"}
    elsewhere = code / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["resume", str(run), "--rounds", "2", "--quiet"]) == 0
    assert main(["verify", str(run)]) == 0
    assert fm.load(run).predict(np.zeros(4), client=0).shape == (3,)
    file = code / "mine.py"
    file.write_text(file.read_text() + "# another version\n")
    for command in ("resume", "verify", "evaluate"):
        capsys.readouterr()
        assert main([command, str(run)]) == 2
        assert "mine.py:fedmine has changed since" in capsys.readouterr().err


def test_compare_names_own_methods_by_their_last_name(code):
    flags = ["--num-clients", "4", "--partition", "iid", "--dataset", "data.npz"]
    flags += ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1", "--quiet"]
    flags += ["--set", "fedmine.weight=2", "--out", "c"]
    assert main(["compare", "--algorithms", "mine.py:fedmine,standalone", *flags]) == 0
    rows = read(code / "c" / "comparison.csv")
    assert [row["algorithm"] for row in rows] == ["fedmine", "standalone"]
    assert rows[0]["last"] == rows[1]["last"]  # the same method
    assert main(["compare", "--algorithms", "mine.py:fedmine,standalone", *flags]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(b"no zip"), "must be an npz file"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: np.savez(path, x_train=[1]), "lacks y_train, x_test, y_test"),
        (
            lambda path: np.savez(
                path, x_train=np.array([{}]), y_train=[1], x_test=[1], y_test=[1]
            ),
            "data.npz holds Python objects",
        ),
    ],
)
def test_a_damaged_data_file_is_refused(code, change, words, capsys):
    change(code / "data.npz")
    assert main(["run", "--dataset", "data.npz", "--models", "mlp"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_comparison_does_not_mix_two_versions_of_a_method(code, capsys):
    flags = ["--num-clients", "4", "--partition", "iid", "--dataset", "data.npz"]
    flags += ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1", "--quiet"]
    words = ["compare", "--algorithms", "mine.py:fedmine", *flags, "--out", "c"]
    assert main(words) == 0
    file = code / "mine.py"
    file.write_text(file.read_text() + "# another version\n")
    assert main([*words, "--seeds", "0,1"]) == 2
    assert "mine.py:fedmine has changed since" in capsys.readouterr().err


def test_what_lies_beside_a_file_is_its_own(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "beside.py").write_text(f"NAME = {name!r}\n")
        (folder / "mine.py").write_text("import beside\n\nNAME = beside.NAME\n")
    found = [references.load(f"{tmp_path / name}/mine.py:NAME") for name in ("a", "b")]
    assert found == ["a", "b"]
    assert references.absolute(f"{tmp_path}/a/../b/mine.py:NAME") == (
        f"{tmp_path}/b/mine.py:NAME"
    )


def test_references_lead_back_to_what_can_be_imported(code):
    assert references.of(algorithms.get("fedavg")) == (
        "fedjax_mrl.algorithms.fedavg:fedavg"
    )
    assert references.load(references.of(Whole)) is Whole
    assert references.of(lambda x: x) is None
    assert references.of(Whole(3)) is None
    file = references.absolute("mine.py:Net")
    assert pathlib.Path(file.partition(":")[0]).is_absolute()
    assert references.load(file) is references.load("mine.py:Net")


def test_an_own_function_is_saved_by_its_reference_or_must_be_given(tmp_path):
    def local(setup):
        return algorithms.get("standalone")(setup)

    shared = {"models": [Whole], "shared_model": "mlp", "dataset": features()}
    federation = small(algorithm=local, **shared)
    federation.fit()
    federation.save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"'local' of the run was a value.*algorithm="):
        fm.load(tmp_path / "a", dataset=shared["dataset"])
    found = fm.load(tmp_path / "a", dataset=shared["dataset"], algorithm=local)
    assert found.config.models == ("tests.test_values:Whole",)
    np.testing.assert_array_equal(
        found.predict(np.ones(4)), federation.predict(np.ones(4))
    )


def test_jax_sees_no_value_of_the_host_in_own_functions():
    pair = (
        lambda key, x: {"w": jax.random.normal(key, (x.shape[-1], 3))},
        lambda params, x: jnp.tanh(x @ params["w"]),
    )
    federation = small(
        algorithm="standalone", models=[fm.model(pair, name="pair")],
        shared_model="mlp", dataset=features(),
    )  # fmt: skip
    assert federation.fit().frame()["mean_accuracy"].between(0, 1).all()
    assert federation.groups[0].name == "pair"


EXTRACTOR = """
from flax import linen as nn


class Small(nn.Module):
    feature_dim: int = 6

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(self.feature_dim)(x))


class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


class Deep(nn.Module):
    layers: int
    feature_dim: int = 6

    def __call__(self, x):
        return x
"""


def test_an_extractor_with_a_width_is_a_network_as_it_stands(tmp_path):
    (tmp_path / "mine.py").write_text(EXTRACTOR)
    small = lambda name: globals()["small"](
        models=(f"{tmp_path}/mine.py:{name}",),
        shared_model=f"{tmp_path}/mine.py:Small",
        dataset=features(),
        shared_dim=4,
    )
    built = small("Small")
    (group,) = built.groups
    assert (group.name, group.model.feature_dim) == ("Small", 6)
    assert built.setup.shared(4).feature_dim == 4
    with pytest.raises(
        ValueError, match=r"give that \(on the command line FILE.py:net"
    ):
        small("Fixed")
    with pytest.raises(ValueError, match=r"a field has no default .*fm.model\(Deep"):
        small("Deep")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.full((9, 2), "a")}, "which is text; a column of words"),
        (
            {"clients": np.array(["a"] * 9, object)},
            "clients in .* holds Python objects",
        ),
        ({"y": np.array(list("abcabcabc"))}, "number the classes of all examples"),
        ({"x": np.where(np.eye(9, 2) > 0, [[1, np.nan]], 0)}, r"the first at \[1, 1\]"),
    ],
)
def test_a_table_is_refused_in_the_words_of_tables(arrays, words, tmp_path):
    table = {"x": np.eye(9, 2), "y": np.arange(9) % 3} | arrays
    np.savez(tmp_path / "t.npz", **table)
    with pytest.raises(ValueError, match=words):
        fm.Federation(dataset=str(tmp_path / "t.npz"), models=("mlp",))


def test_files_of_another_kind_say_what_a_table_becomes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("t.csv", "t.npz"):
        (tmp_path / name).write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=r"A table goes into an npz file by np.savez"):
        fm.Federation(dataset="t.csv")
    with pytest.raises(ValueError, match=r"but is a file of another kind\.$"):
        fm.Federation(dataset="t.npz")
