"""What a model and an algorithm are. Types only; read this file first.

Only a client's private state depends on its architecture. What crosses the
network, the *broadcast* and the *upload*, has one structure and one set of
shapes for all clients. Hence

    Algorithm = Server                    pure functions, free of any architecture
              + (Model -> Client)         pure functions for one architecture

and a heterogeneous federation is a loop over groups of clients that share a
model, each group one compiled program. No function of an algorithm ever sees two
architectures, or one client's state next to another's.

Shape letters: B batch, S steps, K cohort, N clients, L classes, D width of a
representation, d width of the shared one. An example is an array of any shape, the
same for all: an image [H, W, C], features [F], a sequence of tokens [T].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray  # on a device, or still on the host
Tree = Any  # a pytree of arrays; of which structure, what holds it knows
Params = Tree  # of one half of a network
Key = jax.Array  # one typed key
UNKNOWN = -1e9  # logit of a class that a head cannot predict yet; it is finite
State = Tree  # a pytree of arrays, opaque to everything but its algorithm


class Network(NamedTuple):
    """The parameters of one model: an extractor and the header on top of it."""

    extractor: Params
    header: Params


class Model(NamedTuple):
    """A network as pure functions.

    `features` maps inputs [B, ...] to a representation [B, D]; `head` maps that to
    logits [B, L]. Both take their own half of a `Network`.

    Attributes:
        name: how it is called; clients whose models have one name share a program.
        init: key -> parameters.
        features: extractor, inputs -> representation.
        head: header, representation -> logits.
        feature_dim: D.
        num_classes: L.
        stochastic: key -> the same model as it trains, with random parts such as
            dropout drawn by the key; None for a model without any.
    """

    name: str
    init: Callable[[Key], Network]
    features: Callable[[Params, jax.Array], jax.Array]
    head: Callable[[Params, jax.Array], jax.Array]
    feature_dim: int
    num_classes: int
    stochastic: "Callable[[Key], Model] | None" = None

    def logits(self, network: Network, x: jax.Array) -> jax.Array:
        """Maps inputs [B, ...] to logits [B, L]."""
        return self.head(network.header, self.features(network.extractor, x))

    def training(self, key: Key) -> "Model":
        """Returns the model as a loss uses it in one step, of which `key` is."""
        return self if self.stochastic is None else self.stochastic(key)


class Examples(NamedTuple):
    """The whole data set on the device, shared by all clients."""

    x: Array  # [n, ...] as stored: uint8 images, float features, int32 tokens
    y: Array  # [n], int32


class Batches(NamedTuple):
    """Minibatches as positions in the data set; -1 is no example.

    Only the first `steps` rows exist: loops run `steps` times, so the cost
    follows the client's own data and not the largest client's.
    """

    index: Array  # [S, B] int32
    steps: Array  # [] int32


class Batch(NamedTuple):
    """One minibatch as a loss sees it."""

    x: jax.Array  # [B, ...], prepared
    y: jax.Array  # [B] int32, in [0, L)
    mask: jax.Array  # [B] bool; False is padding and must not count


class Visit(NamedTuple):
    """What one client works with when it takes part in one round.

    With `frozen`, which then is the broadcast itself, training leaves every array of it
    as it is (`learning.local.train`): a client that comes later trains what is its own.
    """

    examples: Examples
    train: Batches  # the local epochs, reshuffled for each
    sweep: Batches  # every training example exactly once, in order
    holdout: Batches  # kept out of training; empty unless the algorithm asks
    round: Array  # [] int32, counted from 1
    learning_rate: Array | None = None  # []; None is the optimizer's own
    frozen: Tree = None  # None outside of such training


class ClientUpdate(NamedTuple):
    """What a visit yields."""

    state: State  # stays on the client
    shared: Tree  # the broadcast as this client holds it after training
    upload: Tree  # goes to the server; equal shapes for every architecture. Counts of
    # examples are integers: how large an upload is says its norm without them.
    metrics: dict[str, jax.Array]  # traces over the local steps, [S] each
    upload_bytes: jax.Array | None = None  # [] where shapes overstate the traffic


class Client(NamedTuple):
    """One client, written without a client axis.

    Attributes:
        init: key -> private state.
        update: broadcast, state, visit, key -> `ClientUpdate`.
        predict: shared, state, x [B, ...] -> logits [B, L] by inference mode
            (*head*), the same names as `Algorithm.heads`; `UNKNOWN` for a class that
            a head knows nothing of, whose examples have no loss. `shared` is either the
            client's own copy (`ClientUpdate.shared`) or a fresh broadcast.
        finish: optional; broadcast, state, visit, key -> state, for participants,
            after the server's update.
    """

    init: Callable[[Key], State]
    update: Callable[[Tree, State, Visit, Key], ClientUpdate]
    predict: Callable[[Tree, State, jax.Array], dict[str, jax.Array]]
    finish: Callable[[Tree, State, Visit, Key], State] | None = None


class Cohort(NamedTuple):
    """What the server knows about this round's participants, ascending by id.

    At least one of them counts, that is, has a weight above zero: the server is not
    asked otherwise. What one that does not count uploaded is zeros to the server.
    """

    weights: jax.Array  # [K] float: training samples; 0 for one that failed
    round: jax.Array  # [] int32, counted from 1
    key: Key


class Mechanism(NamedTuple):
    """How sums over clients are made differentially private.

    Attributes:
        clip: C, the largest norm of what one client adds to them.
        noise: standard deviation of the noise in every number, as a multiple of C.
        participants: how many clients are expected in a round; sums are divided by it,
            however many there are.
        presence: what holding a class counts beside the class's mean.
    """

    clip: float
    noise: float
    participants: float
    presence: float = 1.0

    @property
    def std(self) -> float:
        """Standard deviation of the noise in every number of a sum."""
        return self.noise * self.clip


class Release(NamedTuple):
    """All that a server learns of clients, as sums over them that noise can hide.

    A server that has one can be run with differential privacy. The driver then stands
    between it and the clients: it clips what each of them adds, sums, adds noise, and
    the server is given a single upload that is made of the noisy sums.

    Attributes:
        part: upload, broadcast, mechanism -> what the client adds: a pytree of floats.
        upload: noisy sums, broadcast, mechanism -> an upload that stands for all.
    """

    part: Callable[[Any, Any, Mechanism], Any]
    upload: Callable[[Any, Any, Mechanism], Any]


class Server(NamedTuple):
    """The server, which knows no architecture.

    Attributes:
        init: key -> server state.
        broadcast: server state -> what every participant receives.
        update: server state, uploads [K, ...], cohort -> server state.
        broadcast_bytes: server state -> [] bytes of one broadcast, where the
            shapes overstate the traffic (compression); None counts the pytree.
        release: how what it learns can be made private; None says that nobody has
            analysed it, and it is then never run as if it were.
    """

    init: Callable[[Key], State]
    broadcast: Callable[[State], Tree]
    update: Callable[[State, Tree, Cohort], State]
    broadcast_bytes: Callable[[State], jax.Array] | None = None
    release: Release | None = None


class Algorithm(NamedTuple):
    """A federated method.

    Attributes:
        server: its server.
        client: builds the client for a model; raises ValueError where the method
            cannot work with it.
        heads: names of the inference modes; the first one is the headline.
        holdout: fraction of every client's training part to keep out of training.
    """

    server: Server
    client: Callable[[Model], Client]
    heads: tuple[str, ...]
    holdout: float = 0.0


class Setup(NamedTuple):
    """What every algorithm is built from; each uses what it needs.

    Attributes:
        shared: width -> the one architecture that all clients agree on, with a
            representation of that width.
        feature_dim: D, the width of the private models' representations.
        num_classes: L.
        optimizer: optax transformation for one network; each network a client
            trains has its own state and its own clipping. Where a visit has a
            learning rate, it is handed on as an extra argument of that name.
        prepare: `images.Preparation`, from stored images to network inputs.
        num_rounds: length of the run, for schedules over rounds.
    """

    shared: Callable[[int], Model]
    feature_dim: int
    num_classes: int
    optimizer: Any
    prepare: Any
    num_rounds: int = 1
