"""Sweeps over depth, width, seeds, learning rates and penalties: train many networks, and measure J of each (KHK19).

`landscape` is the experiment of KHK19's Figure 1, and `sweep` has all axes. Finished cells can be kept in a `Store`,
one file that survives everything, and computed by the workers of a Dask client.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
    >>> found = landscape(X, Y, depths=[1, 2], widths=[2, 3], seeds=2, epochs=0)
    >>> found.J.sizes["seed"], int(found["rank"].max()) <= 20
    (2, True)
"""

from globopt_jax.sweeps.store import Store, StoreInUse
from globopt_jax.sweeps.sweep import Progress, landscape, sweep
from globopt_jax.sweeps.train import Trained, train
from globopt_jax.sweeps.trends import Trends, trends

__all__ = ["Progress", "Store", "StoreInUse", "Trained", "Trends", "landscape", "sweep", "train", "trends"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
