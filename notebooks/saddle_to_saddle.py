# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # From saddle to saddle
#
# A deep linear network that starts close to zero learns in steps. Its loss stays on a plateau near a saddle, then the
# network leaves the saddle along one direction and comes to a plateau near the next one, until it reaches the global
# minimum. All critical points of such a network are known in closed form, so that the critical point of each plateau
# can be identified. We train on handwritten digits, find the plateaus, and identify their critical points.

# %%
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import datasets, deep_linear, plotting

ROWS = int(os.environ.get("GLOBOPT_NOTEBOOK_ROWS", "1797"))  # the tests take fewer
SMALL = ROWS < 1000
jax.config.update("jax_enable_x64", True)

X, Y, _ = datasets.load("digits")
X, Y = X[:ROWS], Y[:ROWS]
# With white inputs (the left singular vectors), only the singular values of the fit determine the learning times.
rank = int(deep_linear.least_squares(X, Y).rank)
white = jnp.linalg.svd(X, full_matrices=False)[0][:, :rank]
fit = deep_linear.least_squares(white, Y)
s = np.asarray(fit.singular_values)
print("singular values of the fit:", s.round(2))

# %% [markdown]
# ## Training with a monitor
#
# The network has three weight layers and small random weights, and is trained by gradient descent on all samples. The
# data are reduced to their sufficient statistics (61 rows instead of 1797), which changes no gradient. The monitor is
# an optax transformation that works under `jit`. Every few steps it records the loss, the gap to the optimum, an upper
# bound of the gap that follows from the gradients alone, and the learned share of each direction of the fit.

# %%
widths = (white.shape[1], 32, 32, Y.shape[1])
STEPS, EVERY = (3000, 20) if SMALL else (8000, 20)
keys = jax.random.split(jax.random.key(0), 3)
start = [0.002 * jax.random.normal(k, shape) for k, shape in zip(keys, itertools.pairwise(widths), strict=True)]
rate = 0.1 / s[0] ** (4 / 3)
optimizer = optax.chain(deep_linear.monitor(white, Y, every=EVERY, capacity=4096), optax.sgd(rate))


@jax.jit
def train(weights):
    def step(carry, _):
        weights, state = carry
        grads = deep_linear.gradients(weights, fit.inputs, fit.targets)
        moves, state = optimizer.update(grads, state, weights)
        return (optax.apply_updates(weights, moves), state), None

    return jax.lax.scan(step, (weights, optimizer.init(weights)), length=STEPS)[0]


end, state = train(start)
seen = deep_linear.history(state)
print(f"loss {seen.loss[0]:.4f} -> {seen.loss[-1]:.4f}; optimum {seen.loss[-1] - seen.gap[-1]:.4f}")
assert np.all(np.diff(seen.loss) <= 1e-9)
assert np.all(seen.gap_bound >= seen.gap)  # proved, at every look

# %% [markdown]
# ## The plateaus and their names
#
# The network is closest to a critical point where the dimensionless gradient norm (`stationarity`) has a local minimum
# over time. `kept` is the learned share of each direction of the fit. Rounded to 0 or 1, these shares give the index
# set of the critical point, and the closed form gives its loss. The loss on the plateau agrees with it to a few
# percent of the part of the targets that the fit explains.

# %%
eta = seen.stationarity
dips = [t for t in range(1, len(eta) - 1) if eta[t] < eta[t - 1] and eta[t] <= eta[t + 1] and eta[t] < 0.1]
explained = 0.5 * s**2
names = []
for t in dips:
    indices = tuple(np.flatnonzero(seen.kept[t] > 0.5).tolist())
    level = explained[: min(widths)].sum() - explained[list(indices)].sum()
    settled = np.abs(seen.kept[t] - np.round(seen.kept[t]))[s > 1e-6].max()
    if settled > 0.1 or seen.gap[t] < 1e-3 * explained.sum():
        continue  # two equally strong directions are learned together, without a plateau; or training is at its end
    names.append(indices)
    print(f"step {seen.step[t]:6d}: gap {seen.gap[t]:8.3f}, near the critical point that keeps {indices}: {level:8.3f}")
    assert abs(seen.gap[t] - level) <= 0.1 * explained.sum()
assert names

# %% [markdown]
# `critical_point` constructs this critical point. `classify` finds that it is a saddle, and flat to second order: the
# Hessian has no negative eigenvalue there. That is why gradient descent takes so long to leave it. `escape` returns a
# nearby point with a lower loss at once.

# %%
kept = next((indices for indices in names if 0 < len(indices) < int(np.sum(s > 1e-6))), names[0])
saddle = deep_linear.critical_point(white, Y, widths, kept)
verdict = deep_linear.classify(saddle, white, Y)
print(verdict)
assert verdict.kind == "saddle"
down = deep_linear.escape(saddle, white, Y, 0.5, jax.random.key(1))
print(f"{down.method}; lower by {float(down.decrease):.3g} within 0.5")
assert down.found

# %%
final = deep_linear.classify(end, white, Y)
print(final)
assert SMALL or final.kind == "global_minimum"

# %% [markdown]
# Left: the loss decreases in steps, from the loss of one critical point to that of the next (thin lines: the critical
# points that keep the top 0, 1, 2, ... directions). Middle: the bound that follows from the gradients is far above the
# gap near saddles, and close to it at the end. Right: the singular values of the prediction grow one after the other
# to the singular values of the fit.

# %%
figure = plotting.figure((14, 3.8))
left, middle, right = figure.subplots(1, 3)
kept_energy = np.concatenate([[0.0], np.cumsum(explained)])
plotting.staircase(left, seen, np.asarray(final.optimum + explained.sum() - kept_energy))
plotting.certified_gap(middle, seen)
plotting.growth(right, seen, s)
figure
