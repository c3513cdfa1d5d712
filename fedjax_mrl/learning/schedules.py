"""Numbers that change over the rounds: functions of the round, counted from 1."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]

_FORMS = (
    "none, exponential:RATE such as exponential:0.99, step:ROUNDS:RATE such as "
    "step:10:0.5, linear:END such as linear:0.1, cosine, or cosine:END"
)
_COSINE_END = 0.01  # with 0, the last round would train nothing


def decay(text: str, num_rounds: int) -> Schedule:
    """What a learning rate is multiplied by in each round; 1 in the first.

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


def _numbers(words: list[str]) -> list[float]:
    """The arguments; NaN, which no range holds, for what is no number."""
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
    return found
