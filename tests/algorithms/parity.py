"""Walks through both rounds of an oracle's case, for methods with any state."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl.protocol import ClientUpdate
from tests import oracle


class Round(NamedTuple):
    """What is known after one round; lists are by client."""

    number: int
    present: np.ndarray  # ids of the participants
    updates: dict[int, ClientUpdate]  # of each participant
    broadcast: Any  # what they received
    server: Any  # state after aggregation
    states: list[Any]
    shared: list[Any]  # the shared part as each client last held it


def replay(
    case: oracle.Case,
    difference: oracle.Difference,
    server: Any,
    states: list[Any],
    losses: dict[str, str],
) -> Iterator[Round]:
    """Plays the case from given states and compares the losses of every step.

    Args:
        case: what to play.
        difference: where deviations go.
        server: its first state.
        states: the clients' first states.
        losses: our name of a metric -> the oracle's.
    """
    for number, state in enumerate(case.play(server, states), start=1):
        present = case.participants(number)
        broadcast = case.algorithm.server.broadcast(server)
        updates = {
            int(k): case.update(number, k, broadcast, states[k]) for k in present
        }
        for k, out in updates.items():
            for ours, theirs in losses.items():
                difference.array(f"r{number}.c{k}.loss.{theirs}", out.metrics[ours])
        server = state.server
        pairs = [case.of_client(state.clients, k) for k in case.clients]
        states, shared = map(list, zip(*pairs, strict=True))
        yield Round(number, present, updates, broadcast, server, states, shared)


def compare_pairs(
    case: oracle.Case,
    difference: oracle.Difference,
    played: Round,
    private: Callable[[Any], Any],
    shared: Any,
    heads: tuple[str, str],
) -> None:
    """Compares a private model beside a shared one: parameters and logits.

    Args:
        case: what was played.
        difference: where deviations go.
        played: one round of it.
        private: client state -> its private network.
        shared: the server's network.
        heads: names of the private and of the shared model's logits.
    """
    t = played.number
    difference.network(f"r{t}.server.small", shared)
    for k in case.clients:
        difference.network(f"r{t}.c{k}.large", private(played.states[k]))
        difference.network(f"r{t}.c{k}.small", played.shared[k])
        predict = case.client(k).predict
        own = predict(played.shared[k], played.states[k], case.held())
        new = predict(shared, played.states[k], case.held())
        difference.array(f"r{t}.eval_local.c{k}.large", own[heads[0]])
        difference.array(f"r{t}.eval_local.c{k}.small", own[heads[1]])
        difference.array(f"r{t}.eval_global.small", new[heads[1]])
