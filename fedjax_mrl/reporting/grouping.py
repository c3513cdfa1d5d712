"""Sorts runs into settings, which can be compared, and methods, which are repeated.

A *setting* is a data split and a number of rounds; what was trained on different
clients or for different times is not compared. Within it a *method* is what was
configured alike but for its seeds. A *repetition* is a pair of seeds, of the split and
of the training; methods are compared repetition by repetition.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import discovery, references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.reporting.record import Run
from fedjax_mrl.runs import comparison, fairness, grid_columns, resuming

_SEEDS = ("seed", "data_seed")
_SPLIT = tuple(name for name in grid_columns.SPLIT if name not in _SEEDS)


class Method(NamedTuple):
    """Runs that differ in their seeds alone.

    Attributes:
        algorithm: its short name.
        options: in words, those in which it differs from others of the algorithm.
        runs: one for each repetition, ascending.
    """

    algorithm: str
    options: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def private(self) -> bool:
        """Whether it has differential privacy."""
        return self.runs[0].config.privacy is not None

    @property
    def name(self) -> str:
        """Tells it from the others, and private methods from what they are without."""
        marks = ("private",) * self.private
        return ", ".join([self.algorithm, *marks, *self.options])

    @property
    def common_round(self) -> int | None:
        """The last round that all of them evaluated; None if there is none."""
        rounds = set.intersection(*(set(run.curve) for run in self.runs))
        return max(rounds, default=None)


class Setting(NamedTuple):
    """Methods on one data split.

    Attributes:
        title: of it, in words.
        slug: the same for names of files.
        rounds: how many were asked for.
        methods: in the order of their first runs.
        notes: sentences on what was left out or cut.
    """

    title: str
    slug: str
    rounds: int
    methods: tuple[Method, ...]
    notes: tuple[str, ...]

    def alone(self, run: Run) -> Run | None:
        """The run of Standalone with the same clients, data and training."""
        for method in self.methods:
            for other in method.runs if method.algorithm == "standalone" else ():
                if run is not other and not fairness.differing(
                    other.config, run.config
                ):
                    return other
        return None


def group(runs: Sequence[Run]) -> list[Setting]:
    """The settings of some runs, in the order of the first run of each."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_split_key(run), []).append(run)
    made = []
    for alike in found.values():
        lengths = sorted({run.config.rounds for run in alike}, reverse=True)
        made += [_setting(alike, rounds) for rounds in lengths]
    return _told_apart(made)


def _told_apart(settings: Sequence[Setting]) -> list[Setting]:
    """The settings, those of one name for files with a number after it."""
    taken: list[Setting] = []
    for setting in settings:
        slugs = {each.slug: each for each in taken}
        slug = discovery.unused(setting.slug, slugs)
        taken.append(setting._replace(slug=slug))
    return taken


def _setting(alike: Iterable[Run], rounds: int) -> Setting:
    """The setting of runs on one split at some number of rounds."""
    notes: list[str] = []
    kept: dict[tuple[str, tuple[int, int]], Run] = {}
    # Shortest first: a run of just this many rounds comes before a longer one's part.
    for run in sorted(alike, key=lambda run: run.config.rounds):
        place = _method_key(run.config), run.repetition
        if run.config.rounds < rounds:
            continue
        if place in kept:
            notes.append(
                f"{run.path} repeats {kept[place].path} (method and seeds are the "
                f"same) and is left out{_of_longer(run, rounds)}."
            )
            continue
        cut = run.cut(rounds)
        if not cut.curve:
            continue
        kept[place] = cut
        if run.config.rounds > rounds:
            notes.append(
                f"{run.path} has {run.config.rounds} rounds and is taken up to round "
                f"{rounds}. A method whose own schedule follows the number of rounds "
                "(FedKD, for one) is at another place of it there."
            )
    methods: dict[str, list[Run]] = {}
    for (key, _), run in kept.items():
        methods.setdefault(key, []).append(run)
    options = _options([runs[0].config for runs in methods.values()])
    made = [
        Method(runs[0].name, words, tuple(sorted(runs, key=lambda run: run.repetition)))
        for words, runs in zip(options, methods.values(), strict=True)
    ]
    config = next(iter(kept.values())).config
    title = _title(config, rounds)
    return Setting(title, _slug(title), rounds, tuple(made), tuple(notes))


def _of_longer(run: Run, rounds: int) -> str:
    """What to add of a run that is left out although it has more rounds."""
    if run.config.rounds == rounds:
        return ""
    whole = _number(run.config.rounds, "round")
    return f" here; it is in the chapter of {whole}"


def _title(config: RunConfig, rounds: int) -> str:
    words = [
        references.data_title(config.dataset),
        config.partition,
        _number(config.num_clients, "client"),
    ]
    default = RunConfig()
    for name in _SPLIT:
        if name not in ("partition", "num_clients"):
            value = getattr(config, name)
            if value != getattr(default, name):
                words.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join([*words, _number(rounds, "round")])


def _number(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", title.lower().replace(":", "")).strip("-.")


def _settings(config: RunConfig) -> dict[str, Any]:
    """What a configuration says of a method, its options one by one."""
    values = dataclasses.asdict(config)
    for name in (*_SEEDS, *resuming.FREE):
        values.pop(name)
    if config.learning_rate_decay != "none":
        values["schedule_rounds"] = resuming.schedule_length(config)
    options = dict(values.pop("set"))
    for name in ("init_seed", "strategies", "lowering", "chunk"):
        values.pop(name)  # how it was computed, or one more seed
    return values | options


def _method_key(config: RunConfig) -> str:
    return json.dumps(_settings(config), sort_keys=True, default=list)


def _split_key(run: Run) -> str:
    values = {name: getattr(run.config, name) for name in _SPLIT}
    named = references.data_title(run.config.dataset)
    return json.dumps([named, run.data, values], sort_keys=True, default=list)


def _options(configs: Sequence[RunConfig]) -> list[tuple[str, ...]]:
    """The options of methods in words, as far as those of one algorithm differ."""
    all_settings = [_settings(config) for config in configs]
    of_methods = {"algorithm", "shared_model", "shared_dim"}
    options = {key for settings in all_settings for key in settings if "." in key}
    found = []
    for config, settings in zip(configs, all_settings, strict=True):
        own = [s for s in all_settings if s["algorithm"] == settings["algorithm"]]
        words = []
        for key in dict.fromkeys(key for s in all_settings for key in s):
            among = own if key in options | of_methods else all_settings
            if key == "dp":  # its name tells it from those without
                among = [s for s in among if s.get(key) is not None]
            shown = {json.dumps(s.get(key), default=list) for s in among}
            silent = key == "algorithm" or (key == "dp" and config.privacy is None)
            if not silent and len(shown) > 1:
                words.append(_said(key, settings.get(key), config.algorithm))
        found.append(tuple(words))
    return found


def _said(key: str, value: object, algorithm: str) -> str:
    """A setting and its value; of one that was left out the algorithm's own value."""
    short = key.rpartition(".")[2].replace("_", " ")
    ending = ""
    if value is None:
        value, ending = _default(key, algorithm), " (default)"
    if isinstance(value, tuple):
        value = "+".join(references.short(str(each)) for each in value)
    said = "default" if value is None else f"{grid_columns.text(value)}{ending}"
    return f"{short} {said}"


def _default(key: str, algorithm: str) -> object:
    """The default of a hyper-parameter; None where it is not known here."""
    if references.is_reference(algorithm):
        return None  # a user's own function, which may be elsewhere by now
    found = comparison.hyperparameters([algorithm], {})
    return found[algorithm].get(key.rpartition(".")[2])
