"""Is this network a global minimum, how far from one is it at most, and which way is down?

The public names live in topics, which load when they are first used:

    deep_linear  classify, bound and leave the critical points of deep linear networks (YSJ18, K18)
    homogeneous  train and certify positively homogeneous networks with matched regularizers (HV17, K18)
    local_minima what a network's tangent space says about its local minima (KHK19)
    networks     feed-forward networks as pure functions, and models of Flax
    linalg       numerical ranks, projections, and the tolerances of all of it
    losses       squared, softmax cross-entropy, logistic, Huber: value, gradient and convex conjugate
    datasets     the bundled digits, and data from .npz files
    claims       the papers' statements as runnable checks
    plotting     pictures of runs, certificates and tangent spaces, on matplotlib's axes
    rigorous     the part of a certificate that has to be believed, in NumPy alone

>>> import globopt_jax
>>> globopt_jax.losses.squared.name
'squared'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from globopt_jax import (
        claims,
        datasets,
        deep_linear,
        homogeneous,
        linalg,
        local_minima,
        losses,
        networks,
        plotting,
        rigorous,
    )

__version__ = "0.1.0"
__all__ = ["__version__", "claims", "datasets", "deep_linear", "homogeneous", "linalg", "local_minima", "losses"]
__all__ += ["networks", "plotting", "rigorous"]


def __getattr__(name: str) -> Any:
    """A topic, imported at its first use: `import globopt_jax` alone costs nothing beside JAX."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The topics, loaded or not."""
    return sorted({*globals(), *__all__})
