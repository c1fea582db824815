# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # What the tangent space says about local minima
#
# At every differentiable local minimum of a network the squared loss is J: what the tangent space, the span of the
# derivatives in all weights, leaves of the targets (Kawaguchi, Huang & Kaelbling 2019, Theorem 1). J is a number of any
# point, trained or not. It says how good local minima are whose tangent space looks like the one here, and taken apart
# it says which unit and which layer explains what. We train a ReLU network on the handwritten digits and watch.

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
    """Weights of standard deviation sqrt(2 / fan in)."""
    keys = jax.random.split(jax.random.key(seed), len(widths) - 1)
    shapes = itertools.pairwise(widths)
    return [jax.random.normal(k, s) * (2 / s[0]) ** 0.5 for k, s in zip(keys, shapes, strict=True)]


# %% [markdown]
# ## Before any training
#
# The tangent space at random weights grows with the width, and J falls. The Jacobian is never stored: its structure
# gives Gram matrices and residuals, and the accuracy is that of a singular value decomposition.

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
# The loss is never below J, and what lies between is the tangent gap ``1/2 ||P[A] vec(Y - Yhat)||^2``: zero exactly at
# stationary points. Training moves the tangent space as well, so that J falls, too.

# %%
# Units of narrow layers die during training, some on one machine and others on another; 16 leave enough of them.
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
assert loss[-1] < 0.5 * loss[0], "training lowers the loss"
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
# Taken apart in the order of the layers, each unit gets what it adds to those before it, and the output layer gets what
# is left. The sum is what J is short of ``1/2 ||Y||^2``.

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
# A local minimum is never worse than linear regression on the features of its last hidden layer (Theorem 2 with t = H),
# and better by what the tangent space adds. This point is close to a local minimum, not at one.

# %%
last = len(weights) - 1
bounds = local_minima.regression_bounds(weights, X, Y, "relu", [(), (last,)])
regression, value = float(bounds.regression[1]), float(bounds.value[1])
print(f"loss {float(bounds.loss):.4g}, regression on the last features {regression:.4g}, with the tangent {value:.4g}")
assert value <= regression
assert np.isclose(value, J[-1], rtol=0.2), "at a local minimum they are the same"
