"""Counts the arithmetic of a function from its jaxpr.

Counted are products (`dot_general`, `conv_general_dilated`), two operations for
each multiply-add, as the literature counts networks; activations, pooling and
the optimizer are left out. Convolutions are to be built with the `im2col` lowering,
whose products are exactly those of the textbook.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval as pe


def count(
    function: Callable, *args: Any, repeat: Mapping[str, float] | None = None
) -> float:
    """FLOPs of one call; arguments may be shapes.

    Args:
        function: what is counted.
        *args: its arguments or their shapes.
        repeat: how often jitted functions of these names run where the trace shows
            them once, as in the body of a loop; others count once.
    """
    return counter(function, *args)(repeat or {})


def counter(function: Callable, *args: Any) -> Callable[[Mapping[str, float]], float]:
    """Traces a function once, to count it for several `repeat`; see `count`."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return lambda repeat: _count(jaxpr, repeat)


def _count(jaxpr: core.Jaxpr, repeat: Mapping[str, float]) -> float:
    total = 0.0
    # Without what nobody reads, as the gradient of an image.
    jaxpr, _ = pe.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    for equation in jaxpr.eqns:
        if equation.params.get("name") == "over_examples":
            (rows, left), (_, right) = map(_shape, equation.invars)
            total += 2 * rows * left * right
        elif equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left = _shape(equation.invars[0])
            depth = math.prod(left[axis] for axis in contract)
            total += 2 * depth * math.prod(_shape(equation.outvars[0]))
        elif equation.primitive.name == "conv_general_dilated":
            kernel = _shape(equation.invars[1])
            spec = equation.params["dimension_numbers"].rhs_spec
            depth = math.prod(kernel) // kernel[spec[0]]
            total += 2 * depth * math.prod(_shape(equation.outvars[0]))
        else:
            inside = sum(_count(inner, repeat) for inner in _inner(equation.params))
            total += inside * repeat.get(equation.params.get("name", ""), 1)
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner(params: Mapping[str, Any]):
    for value in params.values():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
