"""Is this network a global minimum, how far from one is it at most, and which way is down?

The public names are grouped in topics, which are imported at their first use:

    deep_linear  deep linear networks: classify critical points, bound the gap, escape from saddles (YSJ18, K18)
    function_space  layers as functions: the derivative of the risk, and conditions for global minima (YSJ18)
    homogeneous  positively homogeneous networks with matched regularizers: train and certify (HV17, K18)
    local_minima the tangent space of a network, and the loss at local minima (KHK19)
    networks     feed-forward networks as pure functions, and Flax models in the same form
    linalg       numerical ranks, projections, and the tolerances of the whole package
    losses       squared, softmax cross-entropy, logistic and Huber: value, gradient and convex conjugate
    datasets     digits, MNIST, Fashion-MNIST, CIFAR-10, SVHN, KHK19's synthetic set, and .npz files
    claims       the papers' statements as runnable checks
    path_sums    ReLU networks as sums over paths, and their reduction to deep linear networks (K18)
    plotting     pictures of runs, certificates and tangent spaces, on matplotlib's axes
    rigorous     the verifier of certificates, in NumPy alone
    sweeps       train many networks over depth, width and seeds, and measure J of each (KHK19, K18)
    wide         wide networks with analytic activations: a bound of the loss from a gradient (NH17)

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
        function_space,
        homogeneous,
        linalg,
        local_minima,
        losses,
        networks,
        path_sums,
        plotting,
        rigorous,
        sweeps,
        wide,
    )

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "claims",
    "datasets",
    "deep_linear",
    "function_space",
    "homogeneous",
    "linalg",
    "local_minima",
    "losses",
]
__all__ += ["networks", "path_sums", "plotting", "rigorous", "sweeps", "wide"]


def __getattr__(name: str) -> Any:
    """Import a topic at its first use, so that `import globopt_jax` alone is fast."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of this module, with all topics, imported or not."""
    return sorted({*globals(), *__all__})
