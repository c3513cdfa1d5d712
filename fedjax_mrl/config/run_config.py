"""The configuration of a run: one frozen dataclass, and how layers of options make it.

A layer is a mapping from option to value: a preset, a file, or the flags.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from fedjax_mrl import references
from fedjax_mrl.config import private, values
from fedjax_mrl.config.error import ConfigError
from fedjax_mrl.config.values import Setting

NATURAL = "natural"  # the partition by the clients that the data name
# Beyond these no machine has the memory for a visit's schedule, or a network.
MOST_EPOCHS, WIDEST = 10**6, 2**20


def _option(default: Any, help: str, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's results, and how it is carried out."""

    algorithm: str = _option(
        "fedmrl", "method, see `fedjax-mrl list`, or your own, FILE.py:NAME"
    )
    dataset: str = _option(
        "digits",
        "data set, see `fedjax-mrl list`, or your own: FILE.npz, a folder of images by "
        "class, or one in LEAF's layout",
    )
    data_dir: str | None = _option(
        None,
        "folder of prepared or official files (default: TFDS's own)",
        metavar="DIR",
    )
    image_size: int | None = _option(
        None,
        "side in pixels of the square that all images of --dataset DIR are brought to "
        "(default: their own size, which must be one)",
        low=1,
        high=4096,
    )
    models: tuple[str, ...] = _option(
        ("cnn1", "cnn2", "cnn3", "cnn4", "cnn5"),
        "architectures, also your own as FILE.py:NAME; client k gets entry k mod "
        "length",
    )
    shared_model: str = _option("cnn5", "architecture that all clients share")
    feature_dim: int = _option(
        500, "width of the private representations", low=1, high=WIDEST
    )
    shared_dim: int | None = _option(
        None,
        "width of the shared representation (default: the algorithm's)",
        low=1,
        high=WIDEST,
    )
    num_clients: int = _option(
        10,
        "number of clients; with the partition natural 0 is all that the data name, "
        "and the default",
        low=0,
    )
    held_out_clients: int = _option(
        0,
        "number of clients, the last ones, that never take part; `personalize` brings "
        "them in afterwards",
        low=0,
    )
    participation: float = _option(
        1.0,
        "fraction of the clients (without those held out) sampled each round",
        low=0,
        high=1,
    )
    sampling: str = _option(
        "fixed",
        "how participants are sampled: fixed, always as many, or poisson, each client "
        "by itself with the probability --participation",
    )
    partition: str = _option(
        "class:2",
        "class:C, dirichlet:A, iid, quantity:A, natural (the clients that the data "
        "name), or file:PARTITION.npz",
    )
    limit_train: int | None = _option(
        None,
        "number of training images to use, drawn by data_seed so that every class "
        "keeps its share (default: all)",
        low=1,
    )
    limit_test: int | None = _option(
        None, "number of test images to use, drawn likewise (default: all)", low=1
    )
    test_fraction: float | None = _option(
        None,
        "fraction of every class, or of every client that the data name, to test on, "
        "drawn by data_seed; for data of your own without a test part (default: 0.2)",
        low=0,
        high=1,
    )
    rounds: int = _option(20, "number of communication rounds", low=0)
    epochs: int = _option(
        1, "local epochs of a participant in a round", low=1, high=MOST_EPOCHS
    )
    batch_size: int = _option(64, "number of examples of a local step", low=1)
    learning_rate: float = _option(0.01, "learning rate of local SGD", low=0)
    learning_rate_decay: str = _option(
        "none",
        "decay of the learning rate over rounds: none, exponential:RATE, "
        "step:ROUNDS:RATE, linear:END or cosine:END (over schedule_rounds)",
    )
    momentum: float = _option(0.9, "momentum of local SGD", low=0, high=1)
    weight_decay: float = _option(
        1e-3, "weight decay of local SGD, on weights and biases", low=0
    )
    clip_norm: float = _option(
        50.0, "largest norm of the gradient of each network", low=0
    )
    augmentation: str = _option(
        "auto",
        "augmentation of training images: auto (the data set's own), none, "
        "flip_erase_crop, or raw for float images that are prepared already",
    )
    set: tuple[tuple[str, Setting], ...] = _option(
        (),
        "hyper-parameter of the algorithm or the server, algorithm.NAME=VALUE or "
        "server.NAME=VALUE (reject_nonfinite, max_upload_norm); repeatable",
    )
    same_start: bool = _option(
        True, "equal initial weights for all clients of an architecture"
    )
    seed: int = _option(
        0, "seed of sampling, shuffling, augmentation and faults", low=0
    )
    init_seed: int | None = _option(
        None, "seed of the initial weights (default: seed)", low=0
    )
    data_seed: int = _option(0, "seed of the data split", low=0)
    dropout: float = _option(
        0.0, "probability that a participant fails to report", low=0, high=1
    )
    straggler: float = _option(
        0.0,
        "probability that a participant completes only a part of its steps",
        low=0,
        high=1,
    )
    dp: str | None = _option(
        None,
        "differential privacy of clients, as in clip=1.0,noise=1.2,delta=1e-5; needs "
        "the extra privacy, see docs/privacy.md; for `plan` also epsilon=E instead of "
        "the noise",
        metavar="clip=C,noise=S,delta=D",
    )
    schedule_rounds: int | None = _option(
        None, "number of rounds that schedules span (default: rounds)", low=1
    )
    eval_every: int = _option(1, "rounds between evaluations", low=1)
    checkpoint_every: int = _option(10, "rounds between checkpoints", low=1)
    keep_checkpoints: int = _option(
        2, "number of newest checkpoints that are kept, beside the best", low=1
    )
    digest_every: int = _option(1, "rounds between digests", low=1)
    devices: int = _option(
        0,
        "number of devices that the clients are split over; 0 is all, on a CPU one "
        "for each core",
        low=0,
    )
    chunk: int = _option(
        0,
        "clients of a group computed at once on a device; 0 chooses: on a GPU as many "
        "as a usual cohort has, else 1",
        low=0,
    )
    client_store: str = _option(
        "auto",
        "where client states are kept between rounds: auto, device, host or disk",
    )
    lowering: str = _option(
        "auto",
        "how convolutions are computed: auto, native, im2col, fused, blocked, winograd",
    )
    strategies: tuple[str, ...] = _option(
        (),
        "lowering and chunk by architecture, as in cnn1=winograd:1,cnn2=fused:2; "
        "`run --tune` writes what it finds here",
    )
    deterministic: bool = _option(
        False, "ask a GPU for deterministic kernels (a CPU has no others)"
    )
    precision: str = _option(
        # JAX's own, by device. Full precision would cost everybody six passes for each
        # product on a TPU, and the matrix units of a GPU; no difference in accuracy
        # was seen where a CPU imitated both (docs/accelerators.md).
        "default",
        "precision of matrix products: default (float32 on a CPU, tensorfloat32 on a "
        "GPU, bfloat16 on a TPU), high, highest, bfloat16, tensorfloat32",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = values.check(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if not self.num_clients and self.partition != NATURAL:
            raise ConfigError("--num-clients must be at least 1; got 0.")

    @property
    def num_training_clients(self) -> int:
        """The number of clients that take part: all but those held out."""
        return self.num_clients - self.held_out_clients

    @property
    def cohort_size(self) -> int:
        """K, participants a round: of those who take part, rounded; halves go up."""
        return math.floor(self.participation * self.num_training_clients + 0.5)

    @property
    def privacy(self) -> private.Privacy | None:
        """What `dp` asks for; None without."""
        return None if self.dp is None else private.parse(self.dp)

    @property
    def code(self) -> list[str]:
        """The references to the user's own code, see `references`."""
        names = (self.algorithm, *self.models, self.shared_model)
        return [name for name in dict.fromkeys(names) if references.is_reference(name)]

    @property
    def title(self) -> str:
        """Algorithm and data set, for tables."""
        data = references.data_title(self.dataset)
        return f"{references.short(self.algorithm)} on {data}"

    @property
    def short_name(self) -> str:
        """Algorithm and data set, for folders."""
        return self.title.replace(" on ", "-")

    def algorithm_options(self) -> dict[str, Setting]:
        """The algorithm's hyper-parameters that are not left at their default."""
        options: dict[str, Setting] = {}
        for key, value in self.set:
            prefix, _, name = key.partition(".")
            if prefix == "server":
                continue
            if prefix != "algorithm":  # `compare` also takes an algorithm's name
                raise ConfigError(values.wrong_setting(key))
            options[name] = value
        if self.shared_dim is not None:
            if "shared_dim" in options:
                raise ConfigError(
                    "Give --shared-dim or --set algorithm.shared_dim, not both; got "
                    f"{self.shared_dim} and {options['shared_dim']}."
                )
            options["shared_dim"] = self.shared_dim
        return options

    def server_options(self) -> dict[str, Setting]:
        """The options of the server in `set`."""
        split = [(key.partition("."), value) for key, value in self.set]
        return {name: value for (first, _, name), value in split if first == "server"}

    def to_json(self) -> str:
        """A text from which `from_json` makes an equal configuration."""
        options = dataclasses.asdict(self)
        options["set"] = dict(self.set)
        return json.dumps(options, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "config.json") -> "RunConfig":
        """Reads what `to_json` wrote.

        Args:
            text: of the file.
            source: how messages call it.

        Raises:
            ConfigError: for damaged text or unknown keys.
        """
        try:
            options = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source} must be JSON; {error}.") from None
        return build(options, source=source)


def fields() -> dict[str, dataclasses.Field]:
    """The options by name."""
    return {field.name: field for field in dataclasses.fields(RunConfig)}


def build(*layers: Mapping[str, Any], source: str = "the configuration") -> RunConfig:
    """Merges layers of options, later ones win (`set` is merged key by key).

    Raises:
        ConfigError: for an unknown key (with the nearest valid one) or a bad value.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise ConfigError(
                f"{source} must hold `key: value` pairs; got {type(layer).__name__}."
            )
        for key, value in layer.items():
            name = str(key).replace("-", "_")
            if name not in fields():
                raise ConfigError(_unknown(str(key), source))
            if name == "set":
                if not isinstance(value, (Mapping, tuple)):
                    raise ConfigError(
                        f"set must hold `algorithm.NAME: VALUE` pairs; got {value!r}."
                    )
                value = {**dict(merged.get("set", {})), **dict(value)}
            merged[name] = value
    if merged.get("partition") == NATURAL:
        merged.setdefault("num_clients", 0)
    return RunConfig(**merged)


def _unknown(key: str, source: str) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), fields(), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"There is no option {key!r} in {source}.{hint} Valid: {', '.join(fields())}."
    )
