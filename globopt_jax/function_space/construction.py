"""A global minimum in function space, by construction (YSJ18 Proposition 4.3)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.inputs import integer, is_traced

__all__ = ["global_minimum"]


def global_minimum(target: Callable[[Any], Any], widths: Sequence[int], layer: int = 1) -> list[Callable[[Any], Any]]:
    """Return layers whose composition is h*: layer j is ``(h*(x), 0, ..., 0)``, the others cut off or pad with zeros.

    They satisfy the conditions of Theorem 4.1 (layer 1) or 4.2 with eps1 = eps2 = 1. For Theorem 4.2 the widths must
    also be at least dy from layer j on, which the paper does not say: for widths 2, 5, 3, 4 there is no such point.

    Args:
        target: h*, a function from (dx,) to (dy,) with the value 0 at 0.
        widths: d_0, ..., d_{H+1}; d_0 is dx and d_{H+1} is dy.
        layer: the layer j, from 1 to H + 1; ``d_{j-1}`` is dx.

    Returns:
        The layers h_1, ..., h_{H+1}.

    Raises:
        ValueError: the widths do not satisfy the conditions, or the target has another shape, or another value than 0
            at 0.

    Example:
        >>> layers = global_minimum(lambda x: jnp.sin(x[:1]), (2, 3, 4, 1))
        >>> z = jnp.array([0.5, 1.0])
        >>> for h in layers:
        ...     z = h(z)
        >>> bool(jnp.allclose(z, jnp.sin(0.5)))
        True
    """
    widths = tuple(integer("widths", width) for width in widths)
    if len(widths) < 2:
        raise ValueError(f"widths: Expected: at least two. Received: {widths}.")
    dx, *_, dy = widths
    j = integer("layer", layer, 1, len(widths) - 1)
    if widths[j - 1] != dx or min(widths[:j]) < dx or min(widths[j:]) < dy:
        raise ValueError(
            f"widths: Expected: d_{j - 1} = {dx}, no width below {dx} before layer {j}, and none below {dy} from there "
            f"on. Received: {widths}."
        )
    shape = jnp.shape(target(jnp.zeros(dx)))
    if shape != (dy,):
        raise ValueError(f"target: Expected: values of shape ({dy},). Received: {shape}.")
    with jax.ensure_compile_time_eval():
        size = linalg.norm(target(jnp.zeros(dx)))
    # A target made of traced arrays has no number that could be looked at.
    if not is_traced(size) and not size <= 8 * linalg.machine_epsilon(size.dtype):
        raise ValueError(f"target: Expected: the value 0 at 0. Received: a value of norm {float(size):.4g}.")

    def resized(width: int) -> Callable[[Any], Any]:
        return lambda z: jnp.pad(z[:width], (0, max(width - len(z), 0)))

    layers = [resized(width) for width in widths[1:]]
    layers[j - 1] = lambda z: jnp.pad(target(z), (0, widths[j] - dy))
    return layers
