"""The loss of a network, written out in NumPy's longest floating-point numbers."""

import numpy as np

FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda t: 1 / (1 + np.exp(-t)),
    "softplus": lambda t: np.logaddexp(np.longdouble(0), t),
    "relu": lambda t: np.maximum(t, 0),
}


def output(params, X, activation):
    """Samples are rows; the weights are numbers, not roundings of others."""
    h = np.asarray(X, np.longdouble)
    for l, (kernel, bias) in enumerate(params):
        h = h @ np.asarray(kernel, np.longdouble)
        h = h if bias is None else h + np.asarray(bias, np.longdouble)
        h = h if l == len(params) - 1 else FUNCTIONS[activation](h)
    return h


def loss(params, X, Y, activation):
    return 0.5 * np.sum((output(params, X, activation) - np.asarray(Y, np.longdouble)) ** 2)
