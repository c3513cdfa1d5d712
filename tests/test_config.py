"""Where an option comes from, and how a mistake in it is answered."""

import dataclasses

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from fedjax_mrl import algorithms, config, models
from fedjax_mrl.cli import options
from fedjax_mrl.cli.command import Parser, UsageError
from fedjax_mrl.config import ConfigError, RunConfig, sources
from fedjax_mrl.federation import Federation

# Every run of these tests draws the same examples.
settled = hypothesis.settings(
    derandomize=True, deadline=None, database=None, max_examples=150
)


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """Resolves flags as the command line does, with a preset called `small`."""
    preset = tmp_path / "small.yaml"
    preset.write_text(
        "rounds: 3\nepochs: 4\nbatch-size: 5\nset: {algorithm.a: 1, algorithm.b: 2}\n"
    )
    monkeypatch.setattr(sources, "presets", lambda: {"small": preset})
    file = tmp_path / "file.yaml"
    file.write_text("epochs: 6\nbatch_size: 7\nset: {algorithm.b: 3, algorithm.c: 4}\n")
    parser = Parser(prog="test")
    options.add(parser)

    def resolve(*words):
        given = [str(file) if word == "FILE" else word for word in words]
        args, unknown = parser.parse_known_args(given)
        parser.refuse_unknown(unknown)
        return options.resolve(args)

    return resolve


def test_a_flag_beats_the_file_which_beats_the_preset_which_beats_the_default(parse):
    default = RunConfig()
    every = {
        (): (default.rounds, default.epochs, default.batch_size),
        ("--preset", "small"): (3, 4, 5),
        ("--config", "FILE"): (default.rounds, 6, 7),
        ("--preset", "small", "--config", "FILE"): (3, 6, 7),
        ("--batch-size", "8", "--config", "FILE", "--preset", "small"): (3, 6, 8),
    }
    for words, expected in every.items():
        found = parse(*words)
        assert (found.rounds, found.epochs, found.batch_size) == expected
    # What nothing names stays at its default.
    assert dataclasses.replace(parse("--rounds", "9"), rounds=20) == default


def test_hyper_parameters_are_merged_one_by_one(parse):
    words = ["--preset", "small", "--config", "FILE"]
    words += ["--set", "algorithm.c=5", "--set", "algorithm.d=six"]
    found = parse(*words).algorithm_options()
    assert found == {"a": 1, "b": 3, "c": 5, "d": "six"}
    assert RunConfig().algorithm_options() == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("1e-3", 0.001),  # YAML 1.1 takes it for text
        ("true", True),
        ("linear:0.1:0.9", "linear:0.1:0.9"),
        ("a=b", "a=b"),
        ("!!bool x", "!!bool x"),
        ("{", "{"),
    ],
)
def test_the_value_of_a_setting_is_read_as_yaml_where_it_is_yaml(text, value):
    made = config.build({"set": dict([config.parse_setting(f"algorithm.x={text}")])})
    found = made.algorithm_options()["x"]
    assert found == value and type(found) is type(value)


def test_a_setting_means_the_same_in_a_file_and_as_a_flag(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("set: {algorithm.x: 1e-3, algorithm.y: mean}\n")
    found = config.build(config.read_yaml(path)).algorithm_options()
    assert found == {"x": 0.001, "y": "mean"}


@pytest.mark.parametrize("text", ["algorithm.x", "=2", ""])
def test_a_setting_without_name_or_value_is_refused(text):
    with pytest.raises(ConfigError, match=r"--set takes algorithm.NAME=VALUE.*got"):
        config.parse_setting(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fine_weight": 2}, "must read algorithm.NAME.*got 'fine_weight'"),
        ({"algorithm.": 2}, "must read algorithm.NAME.*got 'algorithm.'"),
        ({"model.x": 2}, "must read algorithm.NAME.*got 'model.x'"),
        ({1: 2}, "must read algorithm.NAME.*got 1"),
        ({1.5: 2}, "must read algorithm.NAME.*got 1.5"),
        ({"algorithm.x": None}, "--set algorithm.x must be .*got None"),
        ({"algorithm.x": [1]}, r"--set algorithm.x must be .*got \[1\]"),
        ({"algorithm.x": float("nan")}, "--set algorithm.x must be a finite number"),
        ({"algorithm.x": 10**400}, "--set algorithm.x must be a finite number"),
        (5, "must hold `algorithm.NAME: VALUE` pairs; got 5"),
    ],
)
def test_settings_that_nothing_can_take_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        config.build({"set": settings}).algorithm_options()


def test_the_width_that_has_a_flag_is_not_given_twice():
    assert RunConfig(shared_dim=4).algorithm_options() == {"shared_dim": 4}
    twice = RunConfig(shared_dim=4, set={"algorithm.shared_dim": 5})
    with pytest.raises(ConfigError, match="not both; got 4 and 5"):
        twice.algorithm_options()


def test_an_unknown_key_gives_the_nearest_and_where_it_stands():
    with pytest.raises(ConfigError, match=r"'round' in my.yaml. Did you mean rounds\?"):
        config.build({"round": 3}, source="my.yaml")
    with pytest.raises(ConfigError, match=r"'zzz' in the configuration. Valid: algori"):
        config.build({"zzz": 3})
    assert config.build({"batch-size": 3}).batch_size == 3


def test_an_unknown_flag_or_preset_gives_the_nearest(parse):
    with pytest.raises(UsageError, match=r"no option --round. Did you mean --rounds\?"):
        parse("--round", "3")
    with pytest.raises(
        UsageError, match=r"no option --learningrate. .*--learning-rate\?"
    ):
        parse("--learningrate=3")
    with pytest.raises(UsageError, match="Unexpected 'three'"):
        parse("three")
    with pytest.raises(UsageError, match=r"--rounds: expected one argument"):
        parse("--rounds")
    with pytest.raises(ConfigError, match=r"no preset 'smal'. Did you mean 'small'\?"):
        parse("--preset", "smal")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "fedmlr"}, r"no algorithm 'fedmlr'. Did you mean 'fedmrl'\?"),
        ({"models": "cnn1,cnn9"}, "no model 'cnn9'. Did you mean 'cnn"),
        ({"shared_model": "mpl"}, r"no model 'mpl'. Did you mean 'mlp'\?"),
        ({"dataset": "digit"}, r"no dataset 'digit'. Did you mean 'digits'\?"),
        ({"partition": "clas:2"}, r"no partition 'clas'. Did you mean 'class'\?"),
        ({"augmentation": "nome"}, r"no augmentation 'nome'. Did you mean 'none'\?"),
        ({"precision": "hihg"}, r"no precision 'hihg'. Did you mean 'high'\?"),
        ({"lowering": "fast"}, "lowering must be one of .*got 'fast'"),
        (
            {"set": {"algorithm.fine_weigth": 1}},
            r"no hyper-parameter of fedmrl 'fine_weigth'. Did you mean 'fine_weight'\?",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_before_any_training(
    given, message
):
    small = {"models": "mlp", "shared_model": "mlp", "shared_dim": 4}
    with pytest.raises(ValueError, match=message):
        Federation(config.build(small, given))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shared_dim", 2.5, "algorithm.shared_dim must be a whole number; got 2.5"),
        ("shared_dim", "wide", "must be a whole number; got 'wide'"),
        ("fine_weight", "much", "must be a number; got 'much'"),
        ("fine_weight", True, "must be a number; got True"),
        ("readout", 5, "must be text; got 5"),
    ],
)
def test_a_hyper_parameter_of_the_wrong_type_is_refused(name, value, message):
    with pytest.raises(ConfigError, match=message):
        Federation(models="mlp", set={f"algorithm.{name}": value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rounds": "many"}, "--rounds must be a whole number; got 'many'"),
        ({"rounds": 2.5}, "--rounds must be a whole number; got 2.5"),
        ({"rounds": True}, "--rounds must be a whole number; got True"),
        ({"rounds": 10**30}, "--rounds must be at most 9007199254740992; got 1000"),
        ({"seed": 2**64}, "--seed must be at most 9007199254740992; got 18446"),
        ({"epochs": 10**9}, "--epochs must be at least 1 and at most 1000000; got 1"),
        ({"feature_dim": 10**12}, "--feature-dim must be at least 1 and at most 1048"),
        ({"shared_dim": 10**12}, "--shared-dim must be at least 1 and at most 10485"),
        ({"rounds": 10**400}, "--rounds must be a whole number; got 1000"),
        ({"rounds": "1e400"}, "--rounds must be a whole number; got '1e400'"),
        ({"rounds": None}, "--rounds needs a value"),
        ({"rounds": -1}, "--rounds must be at least 0; got -1"),
        ({"num-clients": 0}, "--num-clients must be at least 1; got 0"),
        ({"learning_rate": "nan"}, "--learning-rate must be a number; got 'nan'"),
        ({"learning_rate": [0.1]}, r"--learning-rate must be a number; got \[0.1\]"),
        ({"momentum": 1.5}, "--momentum must be at least 0 and at most 1; got 1.5"),
        ({"same_start": "maybe"}, "--same-start must be true or false; got 'maybe'"),
        ({"dataset": ["digits"]}, r"--dataset must be text; got \['digits'\]"),
        ({"models": 5}, "--models must be a list of names, as in .*; got 5"),
        ({"models": "cnn1,,cnn2"}, "--models must name at least one"),
        ({"models": []}, "--models must name at least one"),
        (["rounds"], "must hold `key: value` pairs; got list"),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        config.build(given)


def test_numbers_and_words_are_converted_to_what_the_field_holds():
    found = config.build(
        {
            "rounds": "1e2",
            "learning_rate": "1e-3",
            "same_start": "no",
            "models": " cnn1, mlp ",
            "data_dir": "none",
            "shared_dim": "5",
        }
    )
    assert (found.rounds, type(found.rounds)) == (100, int)
    assert found.learning_rate == 0.001 and found.same_start is False
    assert found.models == ("cnn1", "mlp")
    assert found.data_dir is None and found.shared_dim == 5
    assert config.build({"models": ["cnn1", "mlp"]}).models == ("cnn1", "mlp")


def test_every_field_has_a_flag_and_a_word_of_help():
    parser = Parser(prog="test")
    options.add(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    for name, field in config.fields().items():
        assert "--" + name.replace("_", "-") in flags and field.metadata["help"]
    assert "--num-clients" in parser.format_help()


def test_every_preset_is_a_configuration_of_known_names():
    assert config.presets()
    for name in config.presets():
        found = config.build(config.read_preset(name))
        assert found.algorithm in algorithms.names()
        assert {*found.models, found.shared_model} <= set(models.names())


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"- rounds\n", "must hold `key: value` pairs; got list"),
        (b"rounds", "must hold `key: value` pairs; got str"),
        (b"rounds: [1", "must be a YAML file: while parsing"),
        (b"rounds: 1\n  epochs: 2\n", "must be a YAML file: mapping values"),
        (b"\xff\xfe\x00", "must be a YAML file"),
        (b"rounds: \x00", "must be a YAML file: .*not allowed"),
        (b"rounds: !!python/name:os.system", "must be a YAML file: could not deter"),
        (b"rounds: !!bool x", "must be a YAML file"),
        (b"rounds: !!timestamp x", "must be a YAML file"),
        (b"rounds: !!int ''", "must be a YAML file"),
        (b"[" * 5000, "must be a YAML file"),
    ],
)
def test_a_damaged_file_is_refused_by_name(contents, message, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_bytes(contents)
    with pytest.raises(ConfigError, match=f"some.yaml {message}"):
        config.read_yaml(path)


def test_a_file_that_cannot_be_read_is_refused_and_an_empty_one_is_no_option(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read .*absent: No such file"):
        config.read_yaml(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"Cannot read .*: Is a directory"):
        config.read_yaml(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert config.read_yaml(tmp_path / "empty.yaml") == {}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("yaml") / "file.yaml"


def refused_or_built(read):
    """Nothing but a ConfigError; what is built can be written down and read back."""
    try:
        made = read()
    except ConfigError as error:
        assert len(str(error)) > 10
    else:
        assert RunConfig.from_json(made.to_json()) == made


@settled
@hypothesis.given(st.binary(max_size=60) | st.text(max_size=60))
@hypothesis.example("set: {1: 2}")
@hypothesis.example("set: {algorithm.x: 2020-01-01}")
@hypothesis.example("? !!bool x\n: 1")
@hypothesis.example("set: &a {algorithm.x: *a}")
def test_no_file_whatever_raises_anything_but_a_configuration_error(scratch, contents):
    if isinstance(contents, str):
        contents = contents.encode()
    scratch.write_bytes(contents)
    refused_or_built(lambda: config.build(config.read_yaml(scratch)))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**320), 10**320)
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=3)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=4,
)


@settled
@hypothesis.given(
    st.dictionaries(
        st.sampled_from(sorted(config.fields())) | st.text(max_size=5),
        values,
        max_size=3,
    )
)
def test_no_value_of_any_field_raises_anything_but_a_configuration_error(
    scratch, options
):
    scratch.write_text(yaml.safe_dump(options))
    refused_or_built(lambda: config.build(config.read_yaml(scratch)))


@pytest.mark.slow
@settled
@hypothesis.given(st.text(max_size=30))
@hypothesis.example("algorithm.x=!!int ''")
@hypothesis.example("a=" + "[" * 3000)
def test_no_setting_raises_anything_but_a_configuration_error(text):
    refused_or_built(lambda: config.build({"set": dict([config.parse_setting(text)])}))


def changed():
    """A configuration in which every field differs from its default."""
    other = {
        str: "other",
        int: 7,
        float: 0.25,
        tuple[str, ...]: ("b", "a", "b"),
    }
    other |= {str | None: "some/dir", int | None: 3, float | None: 0.25}
    values = {f.name: other.get(f.type) for f in config.fields().values()}
    values |= {
        f.name: not f.default for f in config.fields().values() if f.type is bool
    }
    values["dp"] = "clip=1.0,noise=2.0,delta=0.001"
    values["set"] = {"algorithm.x": 0.1, "algorithm.y": "text", "algorithm.z": True}
    return RunConfig(**values)


def test_a_configuration_survives_json():
    for made in (RunConfig(), changed()):
        assert RunConfig.from_json(made.to_json()) == made
    default, made = dataclasses.asdict(RunConfig()), dataclasses.asdict(changed())
    assert all(made[name] != default[name] for name in made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json must be JSON"),
        ("[" * 100_000, "config.json must be JSON"),
        ("[]", "config.json must hold `key: value` pairs; got list"),
        ('{"rownds": 1}', "'rownds' in config.json. Did you mean rounds?"),
        ('{"set": [1]}', r"set must hold .*got \[1\]"),
    ],
)
def test_a_damaged_config_json_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_json(text)


def test_a_configuration_cannot_be_changed_but_replaced():
    made = RunConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.rounds = 3
    with pytest.raises(ConfigError, match="--rounds must be at least 0"):
        dataclasses.replace(made, rounds=-3)
