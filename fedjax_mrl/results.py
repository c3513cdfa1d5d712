"""What a round yields, and the rows of tables that it makes.

Pure functions of a `Result` and of facts that hold for the whole federation: no files
and no clocks. The keys of a row are the columns of its table, in their order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl.simulation import evaluation
from fedjax_mrl.simulation.evaluation import POINTS, Scores
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import Played, State

Row = dict[str, Any]  # column to value


class Seconds(NamedTuple):
    """Duration of one round, and of its parts.

    Attributes:
        total: of the round, in seconds.
        local: until all participants were trained, compilation included.
        server: until the aggregate and all states were there.
        evaluation: of all clients.
    """

    total: float
    local: float = 0.0
    server: float = 0.0
    evaluation: float = 0.0

    @property
    def writing(self) -> float:
        """The rest: the digest, and what a run wrote since the round before."""
        return max(0.0, self.total - self.local - self.server - self.evaluation)


class Result(NamedTuple):
    """One round as `Federation.rounds` yields it.

    Attributes:
        state: after it, until the next round is played from it; `state.round` is its
            number.
        played: who took part, with losses and traffic.
        scores: of all clients, `scores.accuracy` [point, head, client]; None in rounds
            without evaluation (`eval_every`).
    """

    state: State
    played: Played
    scores: Scores | None

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy of all tested clients, local, in the method's first head.

        None in a round without evaluation.
        """
        if self.scores is None:
            return None
        return float(self.scores.accuracy[0, 0, self.scores.num_test > 0].mean())


def round_row(
    result: Result, flops: np.ndarray, seconds: Seconds, digest: str = ""
) -> Row:
    """The row of rounds.csv for one round.

    `train_loss` is the mean over the participants whose report was accepted, of the
    mean over their local steps; NaN if nobody's was.

    Args:
        result: the round.
        flops: FLOPs of every client's visit [N], as `Federation.flops` counts them.
        seconds: how long the round and its parts took.
        digest: of the state after it, in hex; "" if it was not computed.
    """
    played = result.played
    losses = played.metrics["total"][played.sound]
    return {
        "round": result.state.round,
        "seconds": round(seconds.total, 4),
        "participants": played.cohort.size,
        "train_loss": float(losses.mean()) if losses.size else float("nan"),
        "bytes_down": int(played.bytes_down) * played.cohort.size,
        "bytes_up": int(played.bytes_up.astype(np.float64).sum()),
        "flops": int(flops[played.reported].sum()),
        "digest": digest,
        "dropped": played.cohort.size - played.reported.size,
        "stragglers": played.stragglers,
        "rejected": played.rejected,
        "seconds_local": round(seconds.local, 4),
        "seconds_server": round(seconds.server, 4),
        "seconds_evaluation": round(seconds.evaluation, 4),
        "seconds_writing": round(seconds.writing, 4),
    }


def metric_rows(result: Result, heads: Sequence[str]) -> list[Row]:
    """The rows of metrics.csv for one round: one for each point and inference mode.

    Args:
        result: the round; there is no row if it was not evaluated.
        heads: the inference modes, as `Algorithm.heads`; the headline's comes first.
    """
    if result.scores is None:
        return []
    return [
        {"round": result.state.round, **row}
        for row in evaluation.summarise(result.scores, heads)
    ]


def client_rows(
    result: Result,
    heads: Sequence[str],
    architectures: Sequence[str],
    num_train: Sequence[int],
) -> list[Row]:
    """The rows of clients.csv for one round: of each client, each point and mode.

    Args:
        result: the round; there is no row if it was not evaluated.
        heads: the inference modes, as `Algorithm.heads`.
        architectures: the name of every client's architecture [N].
        num_train: the number of every client's training images [N].

    Returns:
        The rows, by client, point and mode; clients without test images have none.
    """
    scores = result.scores
    if scores is None:
        return []
    return [
        {
            "round": result.state.round,
            "client": client,
            "architecture": architectures[client],
            "point": point,
            "head": head,
            "num_train": num_train[client],
            "num_test": int(scores.num_test[client]),
            "correct": int(scores.correct[p, h, client]),
            "accuracy": float(scores.accuracy[p, h, client]),
            "loss": _loss(scores, p, h, client),
        }
        for client in range(scores.num_test.size)
        if scores.num_test[client]
        for p, point in enumerate(POINTS)
        for h, head in enumerate(heads)
    ]


def architectures(groups: Sequence[Group]) -> list[str]:
    """The name of every client's architecture, in the order of the clients [N]."""
    names = {int(client): group.name for group in groups for client in group.clients}
    return [names[client] for client in range(len(names))]


def _loss(scores: Scores, point: int, head: int, client: int) -> float | None:
    """A client's mean loss; None where no test example has one."""
    has = scores.num_loss[point, head, client] > 0
    return float(scores.loss[point, head, client]) if has else None
