"""KHK19's synthetic data: the outputs of a random network, the teacher."""

import itertools

import numpy as np

from globopt_jax.datasets.description import Description

__all__ = ["DESCRIPTION", "draw"]

_LAYERS, _WIDTH, _INPUTS, _SAMPLES = 7, 50, 10, 5000

DESCRIPTION = Description(
    name="khk19-synthetic",
    about="Standard normal inputs and the scalar outputs of a random network with 7 hidden layers of 50 tanh units and "
    "a linear output. Entries of the weights W_l (d_(l-1), d_l) are normal with standard deviation sqrt(2 / d_l), and "
    "d_l is the number of units that the weights lead to: the paper's formula taken literally.",
    shape=(_SAMPLES, _INPUTS, 1),
    source="drawn from a seed (KHK19, section 4.3 and appendix C)",
    licence="none needed",
)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs X (5000, 10) and targets Y (5000, 1) of a teacher that is drawn as well."""
    sizes = (_INPUTS, *[_WIDTH] * _LAYERS, 1)
    X = rng.standard_normal((_SAMPLES, _INPUTS))
    features = X
    for layer, (before, after) in enumerate(itertools.pairwise(sizes)):
        weights = np.sqrt(2 / after) * rng.standard_normal((before, after))
        features = features @ weights
        if layer < _LAYERS:
            features = np.tanh(features)
    return X, features
