"""What can be asked of a federation, whoever trained it."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import costs, engines, personalized, personalizing, references
from fedjax_mrl.exporting import description, subject, writing
from fedjax_mrl.history import History
from fedjax_mrl.programs import Programs
from fedjax_mrl.results import Row
from fedjax_mrl.runs import pictures, summary
from fedjax_mrl.simulation import evaluation, prediction
from fedjax_mrl.simulation.state import State, named, read_clients, require_live

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trained(Programs):
    """A federation and its newest state: to be tested, asked, written out, explained.

    `Federation` is one of these that also trains.

    Attributes:
        state: the newest; None before the first round.
        history: the rounds that were played.
    """

    state: State | None
    history: History

    def client(self, number: int) -> engines.ClientEngine:
        """One client by itself, for an engine that carries messages.

        Args:
            number: of the client.

        Raises:
            ValueError: if there is no such client.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5,
            ...     participation=0.4, rounds=1,
            ... )
            >>> server, clients = federation.server(), {}
            >>> state = server.init()
            >>> reports = {}
            >>> for number in server.sample(round=1):
            ...     client = federation.client(number)
            ...     clients[number], reports[number] = client.update(
            ...         server.broadcast(state), client.init(), round=1
            ...     )
            >>> state = server.update(state, reports, round=1)
            >>> len(clients), sorted(fm.pack(state))[:2]
            (2, ['extractor/fc1/bias', 'extractor/fc1/kernel'])
        """
        number = prediction.require_client(number, self.taking_part(number))
        return engines.ClientEngine(self, self._assembled(1), number)

    def server(self) -> engines.ServerEngine:
        """The server by itself; see `client`."""
        return engines.ServerEngine(self, self._assembled(1))

    def evaluate(self, state: State | None = None) -> evaluation.Scores:
        """Scores of all clients, all heads, both points.

        Args:
            state: of which; by default the newest one (`self.state`).
        """
        return self.scores(self._given(state))

    def predict(
        self,
        x: ArrayLike,
        client: int | None = None,
        *,
        head: str | None = None,
        state: State | None = None,
        point: str = "local",
    ) -> np.ndarray:
        """What a trained client says of new images.

        Args:
            x: images like the training images, as they are stored and not normalised:
                [B, H, W, C], or one [H, W, C]. Grey ones may lack C.
            client: its number; None asks all clients.
            head: the inference mode; by default the headline's, the first of
                `algorithm.heads`.
            state: of which round; by default the newest one (`self.state`).
            point: "local", with the shared part as the client last held it, or
                "global", with the newest aggregate.

        Returns:
            Logits [B, L], for all clients [N, B, L]; without B for one image. The
            class is the `argmax` over the last axis, and `jax.nn.softmax` makes
            probabilities.

        Raises:
            ValueError: for images of another shape or type, and for a client, head or
                point that there is not.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> results = list(federation.rounds())
            >>> federation.predict(federation.dataset.x_test[:7], client=3).shape
            (7, 10)
            >>> federation.predict(federation.dataset.x_test[0]).shape
            (5, 10)
        """
        self.taking_part(client)
        return self.logits(self._given(state), x, client, head, point)

    def taking_part(self, client: Any) -> int:
        """How many clients take part.

        Raises:
            ValueError: for a client that is held out.
        """
        number = len(self.train)
        if isinstance(client, (int, np.integer)) and (
            number <= client < self.config.num_clients
        ):
            raise ValueError(
                f"client {client} is held out and takes part in no round. It gets a "
                f"model when it comes: personalize([{client}]) in Python, `fedjax-mrl "
                f"personalize RUN --clients {client} --export DIR` as a command."
            )
        return number

    def _given(self, state: State | None) -> State:
        """The state, or the newest one."""
        state = self.state if state is None else state
        if state is None:
            raise ValueError(
                "There is no state yet that a round was played to: loop over rounds(), "
                "or give one, as state=federation.init()."
            )
        return state

    def personalize(
        self,
        clients: Sequence[int] | None = None,
        *,
        epochs: int = personalized.EPOCHS,
        shared: str = "fine-tuned",
        learning_rate: float | None = None,
        data: Any = None,
        model: Any = None,
    ) -> personalized.Personalized:
        """Brings clients in that never took part; changes nothing of the federation.

        Each begins with the newest broadcast and fresh private parts and trains by
        itself.

        Args:
            clients: numbers of clients that were held out (`held_out_clients`); by
                default all of them.
            epochs: passes over its data.
            shared: "fine-tuned", the client trains its copy of the shared part too, or
                "frozen", that stays bit for bit.
            learning_rate: of this training; by default the configuration's, without
                its decay.
            data: of one client from outside instead: four arrays (x, y, x_test,
                y_test), `fm.arrays(...)`, or the path of an npz file, all like the
                federation's. Labels are numbers of its classes; some may be missing.
                Without x_test and y_test some of each class are kept for testing.
            model: its architecture, as an entry of `models`; by default the one that
                is its turn.

        Returns:
            Accuracies before and after, and alone; and what the clients became.

        Raises:
            ValueError: if no round was played, for clients that took part, and for
                data or a model that do not fit.
            Diverged: if a network became non-finite.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5,
            ...     held_out_clients=1, rounds=1,
            ... )
            >>> _ = federation.fit()
            >>> come = federation.personalize(epochs=2, shared="frozen")
            >>> come.clients, list(come.rows()[0])[-4:]
            ((4,), ['before', 'after', 'alone', 'gain'])
        """
        asked = personalized.Asked(clients, epochs, shared, learning_rate, data, model)
        state = self._given(None)
        return personalizing.play(self, state, personalizing.prepare(self, asked))

    def networks(self, client: int, *, state: State | None = None) -> dict[str, Any]:
        """The parameters that a client holds, as pytrees on the host.

        Args:
            client: its number.
            state: of which round; by default the newest one (`self.state`).

        Returns:
            "shared": what travels, as the client last held it; and every part of its
            private state by name, such as "private" and "projector".

        Raises:
            ValueError: for a client that there is not.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> _ = federation.fit()
            >>> networks = federation.networks(client=3)
            >>> sorted(networks)
            ['private', 'projector', 'shared']
            >>> networks["projector"]["kernel"].shape
            (600, 500)
        """
        state = self._given(state)
        require_live(state)
        number = prediction.require_client(client, self.taking_part(client))
        some = np.array([number])
        read = read_clients(state, self.groups, some, self.store)
        return named(*read[number])

    def export(
        self,
        path: str | os.PathLike,
        client: int,
        *,
        head: str | None = None,
        point: str = "local",
        formats: str | Iterable[str] | None = None,
        overwrite: bool = False,
    ) -> pathlib.Path:
        """Writes a client's personal model of the newest state; docs/export.md.

        Args:
            path: the folder, new or empty; `fm.load_model` reads it.
            client: its number.
            head: the inference mode, as of `predict`.
            point: likewise.
            formats: some of "jax", "safetensors" and "torch"; by default the first two.
            overwrite: replace the model that is there.

        Returns:
            The folder.

        Raises:
            ValueError: for what there is not, or cannot be exported.
            OSError: if it cannot be written; then nothing is.
        """
        self._given(None)
        choice = description.choose(self, client, head, point)
        model = subject.participant(self, choice)
        return writing.export(model, path, formats=formats, overwrite=overwrite)

    def plot_partition(self) -> "Figure":
        """Draws how many training examples of each class every client has.

        Returns:
            A matplotlib figure, which a notebook shows; `savefig(path)` writes it.
        """
        data = self.dataset
        return pictures.split(self.partition, data.y_train, data.label_names)

    def costs(
        self,
        targets: Sequence[float] = summary.TARGETS,
        *,
        bandwidth: tuple[float, float] | None = None,
        speed: float | Mapping[str, float] | None = None,
    ) -> list[Row]:
        """Rounds, bytes, FLOPs and seconds until accuracies were first reached.

        Args:
            targets: mean accuracies of all clients, local, in the first head.
            bandwidth: Mbit/s of a client, down and up. With it `simulated_seconds` say
                how long the rounds would have taken on clients' own machines, where a
                round lasts until its slowest participant is done.
            speed: GFLOP/s that a client's device does in training; a dict gives those
                of each architecture. By default 10.

        Returns:
            A row for each target that was reached: `target`, `rounds`, `bytes` (both
            ways, of all participants), `flops`, `seconds` as measured here, and with a
            bandwidth `simulated_seconds`.

        Raises:
            ValueError: for a bandwidth or speed that is not above zero, an
                architecture that no client has, a speed without a bandwidth, or a
                target that is no accuracy.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> history = federation.fit()
            >>> [row] = federation.costs([0.1], bandwidth=(20, 5), speed={"mlp": 2})
            >>> list(row)
            ['target', 'rounds', 'bytes', 'flops', 'seconds', 'simulated_seconds']
        """
        machines = None
        if bandwidth is not None:
            speed = 10.0 if speed is None else speed
            machines = costs.machines(bandwidth, speed, self.groups)
        elif speed is not None:
            raise ValueError("speed needs bandwidth=(down, up) beside it.")
        rounds, metrics = (self.history.rows(name) for name in ("rounds", "metrics"))
        return costs.to_targets(
            self, rounds, metrics, targets=targets, machines=machines
        )

    def summary(self) -> Mapping[str, Any]:
        """What summary.json would say of the rounds that were played."""
        made = summary.summarise(
            algorithm=references.short(self.config.algorithm),
            dataset=self.dataset.name,
            rounds=self.history.rows("rounds"),
            metrics=self.history.rows("metrics"),
            head=self.algorithm.heads[0],
        )
        if self.privacy is not None:
            made["privacy"] = self.privacy.summary(made["rounds"])
        return made

    def _no_history(self) -> History:
        sizes = [part.size for part in self.train]
        return History(self.groups, self.algorithm.heads, sizes, self.flops)
