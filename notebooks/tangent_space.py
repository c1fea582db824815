# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # The tangent space and the loss of local minima
#
# The tangent space of a network at given weights is the span of the derivatives of its output in all weights. J is half
# the squared distance from the targets to this space. At every differentiable local minimum of a network with a linear
# last layer, the squared loss equals J (Kawaguchi, Huang & Kaelbling 2019, Theorem 1).
#
# J can be computed at all weights, trained or not: it is the loss of local minima with the same tangent space. J can
# also be decomposed into the parts of the targets that each unit and each layer explains. We train a ReLU network on
# handwritten digits and follow J.

# %%
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import datasets, local_minima, networks, plotting

ROWS = int(os.environ.get("GLOBOPT_NOTEBOOK_ROWS", "1797"))  # the tests take fewer
SMALL = ROWS < 1000
jax.config.update("jax_enable_x64", True)

X, Y, _ = datasets.load("digits")
X, Y = X[:ROWS], Y[:ROWS]
network = networks.feed_forward("relu")


def initial(widths, seed=0):
    """Return random weights of standard deviation sqrt(2 / fan in)."""
    keys = jax.random.split(jax.random.key(seed), len(widths) - 1)
    shapes = itertools.pairwise(widths)
    return [jax.random.normal(k, s) * (2 / s[0]) ** 0.5 for k, s in zip(keys, shapes, strict=True)]


# %% [markdown]
# ## Before any training
#
# With larger width, the tangent space at random weights has more dimensions, and J is smaller. Large Jacobians are not
# stored: Gram matrices and residuals are computed from their structure, with the accuracy of a singular value
# decomposition.

# %%
HIDDEN = (2, 4) if SMALL else (2, 4, 8, 12)
at_start = {d: local_minima.tangent_projection(network, initial((64, d, d, 10)), X, Y) for d in HIDDEN}
for d, found in at_start.items():
    print(f"width {d:2}: rank {int(found.rank):4}, J / (1/2 ||Y||^2) = {float(found.value) / (0.5 * ROWS):.3f}")
assert all(bool(found.converged) for found in at_start.values())
assert float(at_start[HIDDEN[-1]].value) < float(at_start[HIDDEN[0]].value)

# %% [markdown]
# ## J and the loss during training
#
# The loss is never below J. Their difference is the tangent gap ``1/2 ||P[A] vec(Y - Yhat)||^2``, where P[A] projects
# onto the tangent space. The tangent gap is zero exactly at stationary points. Training also changes the tangent space,
# and J with it.

# %%
# In narrow layers, units die during training, and which ones differs between machines; 16 units leave enough alive.
widths = (64, 8, 8, 10) if SMALL else (64, 16, 16, 10)
STEPS, LOOKS, RATE = (1000, 3, 0.003) if SMALL else (3000, 12, 0.002)
optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))


@jax.jit
def step(weights, state):
    grads = jax.grad(lambda W: 0.5 * jnp.mean(jnp.sum((network(W, X) - Y) ** 2, axis=1)))(weights)
    updates, state = optimizer.update(grads, state, weights)
    return optax.apply_updates(weights, updates), state


weights, looks = initial(widths), []
state = optimizer.init(weights)
wanted = {0} | {round(STEPS ** (i / (LOOKS - 1))) for i in range(LOOKS)}
for number in range(STEPS + 1):
    if number in wanted:
        looks.append((number, local_minima.tangent_projection(network, weights, X, Y)))
    weights, state = step(weights, state)
steps = np.array([number for number, _ in looks])
J, loss = (np.array([float(getattr(found, name)) for _, found in looks]) for name in ("value", "loss"))
print(looks[-1][1])
assert np.all(loss * (1 + 1e-9) >= J)
# A network whose units have all died outputs zeros, and has the loss 1/2 ||Y||^2.
assert loss[-1] < 0.9 * 0.5 * np.sum(Y**2), "training explains something"
assert all(np.isclose(found.loss - found.gap, found.value, rtol=1e-8) for _, found in looks)

# %%
figure = plotting.figure((6, 3.4))
ax = plotting.tangent_trace(figure.subplots(), steps, J, loss)
ax.set_xscale("symlog")
ax.set_xlim(0, STEPS)
figure

# %% [markdown]
# ## Unit by unit
#
# `decompose` takes the units in the order of the layers. The share of a unit is the part of the targets that this unit
# explains beyond the units before it; the output layer comes last. The shares sum to ``1/2 ||Y||^2 - J``.

# %%
shares = local_minima.decompose(weights, X, Y, "relu")
print(shares)
total = sum(float(np.sum(share)) for share in shares.shares)
assert np.isclose(float(shares.target) - total, float(shares.value), rtol=1e-9)
figure = plotting.figure((7, 2.6))
plotting.unit_shares(figure.subplots(), shares)
figure

# %% [markdown]
# ## Against regression on the network's own features
#
# The loss of a local minimum is at most that of linear regression on the features of the last hidden layer (Theorem 2
# with t = H). The tangent space improves this bound. The weights here are close to a local minimum, not at one, so
# that the bound and J are only close to each other.

# %%
last = len(weights) - 1
bounds = local_minima.regression_bounds(weights, X, Y, "relu", [(), (last,)])
regression, value = float(bounds.regression[1]), float(bounds.value[1])
print(f"loss {float(bounds.loss):.4g}, regression on the last features {regression:.4g}, with the tangent {value:.4g}")
assert value <= regression
assert np.isclose(value, J[-1], rtol=0.2), "at a local minimum they are the same"
