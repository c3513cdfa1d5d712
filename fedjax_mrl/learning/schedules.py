"""Numbers that change over the rounds: functions of the round, counted from 1."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[int], float]
Weight = float | str | Schedule  # a number for all rounds, a text, or a schedule

_FORMS = (
    "none, exponential:RATE such as exponential:0.99, step:ROUNDS:RATE such as "
    "step:10:0.5, linear:END such as linear:0.1, cosine, or cosine:END"
)
_COSINE_END = 0.01  # with 0, the last round would train nothing


def decay(text: str, num_rounds: int) -> Schedule:
    """The factor of the learning rate in each round; 1 in the first.

    Args:
        text: `none`: always 1.
            `exponential:RATE`: RATE times the round before.
            `step:ROUNDS:RATE`: RATE times as much every so many rounds.
            `linear:END`: in a line to END in round `num_rounds`.
            `cosine` or `cosine:END`: likewise, on half a cosine; END is 0.01.
        num_rounds: T. After it, `linear` and `cosine` stay at END.

    Raises:
        ValueError: for another text, or numbers out of (0, 1] (END may be 0).

    Example:
        >>> [round(decay("step:2:0.5", 9)(number), 3) for number in range(1, 6)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
        >>> [round(decay("cosine:0", 3)(number), 3) for number in range(1, 6)]
        [1.0, 0.5, 0.0, 0.0, 0.0]
    """
    kind, *words = text.split(":")
    numbers = _numbers(words)
    match kind, numbers:
        case "none", []:
            return lambda round: 1.0
        case "exponential", [rate] if 0 < rate <= 1:
            return lambda round: rate ** (round - 1)
        case "step", [every, rate] if every >= 1 and every % 1 == 0 and 0 < rate <= 1:
            return lambda round: rate ** ((round - 1) // int(every))
        case "linear", [end] if 0 <= end <= 1:
            return line(1.0, end, num_rounds)
        case "cosine", [] | [_] if not numbers or 0 <= numbers[0] <= 1:
            half = line(0.0, math.pi, num_rounds)
            end = numbers[0] if numbers else _COSINE_END
            return lambda round: end + (1 - end) * (1 + math.cos(half(round))) / 2
    raise ValueError(
        f"--learning-rate-decay must be {_FORMS}, with RATE above 0 and at most 1 and "
        f"END from 0 to 1; got {text!r}."
    )


def line(start: float, end: float, num_rounds: int) -> Schedule:
    """From `start` in round 1 to `end` in round `num_rounds`, and so from there on."""

    last = max(num_rounds, 1)

    def at(round: int) -> float:
        done = (min(round, last) - 1) / max(last - 1, 1)
        return start + (end - start) * done

    return at


def weights(name: str, value: Weight, num_rounds: int) -> list[float]:
    """The values of a loss's weight in rounds 1, 2, ..., at least one.

    Args:
        name: how the weight is called in the error.
        value: a number; `linear:START:END`, from START in round 1 to END in round
            `num_rounds`; or a function of the round.
        num_rounds: length of the run.

    Raises:
        ValueError: for another text, or a value outside of [0, 1].

    Example:
        >>> weights("alpha", "linear:0:1", 3)
        [0.0, 0.5, 1.0]
    """
    length = max(num_rounds, 1)
    if callable(value):
        values = [float(value(round)) for round in range(1, length + 1)]
    else:
        text = str(value)
        if text.startswith("linear:"):
            ends = _numbers(text.removeprefix("linear:").split(":"))
        else:
            ends = 2 * _numbers([text])
        values = [math.nan]
        if len(ends) == 2:
            start, end = ends
            values = _evenly(start, end, length)
    if not all(0 <= weight <= 1 for weight in values):
        raise ValueError(
            f"{name} must be in [0, 1] in every round; got {value!r}. Give a number "
            "such as 0.5, linear:START:END such as linear:0.2:0.8, or a function of "
            "the round."
        )
    return values


def of_round(values: list[float], round: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The value of round `round`, counted from 1; past the end it is the last: []."""
    return jnp.asarray(values, dtype)[jnp.clip(round - 1, 0, len(values) - 1)]


def growing(start: float, end: float, round: jax.Array, num_rounds: int) -> jax.Array:
    """start + t/T (end - start) in round t of T, and `end` past the last: []."""
    progress = jnp.minimum(round.astype(float) / max(num_rounds, 1), 1)
    return start + progress * (end - start)


def _evenly(start: float, end: float, number: int) -> list[float]:
    """From start to end, both included; of a single value it is the start."""
    step = (end - start) / max(number - 1, 1)
    values = [start + step * place for place in range(number)]
    return values if number == 1 else [*values[:-1], end]


def _numbers(words: list[str]) -> list[float]:
    """The arguments; NaN, which no range holds, for what is no number."""
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
    return found
