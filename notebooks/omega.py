# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # The cheapest network for an output
#
# Many networks compute the same output on given samples. Haeffele and Vidal (HV17) ask which of them has the smallest
# penalty: `Omega(Z)` is the infimum of `sum_i theta(W_i)` over all widths and all weights whose output is Z. In Z it is
# convex, although the training problem in the weights is not. We look at its unit ball, bound it from both sides, prune
# a network with it, and see what goes wrong if the penalty has another degree than the network.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import datasets, homogeneous, losses, plotting

ROWS = int(os.environ.get("GLOBOPT_NOTEBOOK_ROWS", "500"))  # the tests take fewer
EFFORT = os.environ.get("GLOBOPT_NOTEBOOK_EFFORT", "standard")
jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The unit ball in the plane
#
# With two samples and one output, Z is a point in the plane. The orange points are the outputs of single neurons of
# penalty 1, in all directions. The unit ball of Omega is their convex hull. By duality it lies in each half plane
# `<U, Z> <= polar(U)`, where the polar is the largest inner product of U with a neuron of penalty 1. The green line is
# the border that these half planes leave.
#
# The ball of linear neurons is an ellipse: Omega is the nuclear norm of `X^+ Z`, which is the length of a vector here.
# For ReLU neurons two sides of the border are straight: an output with opposite signs at the two samples needs two
# neurons.

# %%
X = jnp.array([[1.0, 0.0], [0.5, 0.9]])
angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
hidden = np.stack([np.cos(angles), np.sin(angles)], axis=1)
neurons = (np.concatenate([hidden, hidden]), np.concatenate([np.ones((180, 1)), -np.ones((180, 1))]))
figure = plotting.figure((10, 3.8))
for ax, name in zip(figure.subplots(1, 3), ("linear", "relu", "absolute"), strict=True):
    problem = homogeneous.Problem(name, "product_of_norms", "squared", 1.0)
    plotting.unit_ball(ax, problem, X, neurons).set_title(f"{name} neurons")
figure

# %% [markdown]
# ## Both sides at a point
#
# `omega` returns an upper bound with the weights that attain it, and a lower bound from the polar. The lower bound is
# rigorous. Where the polar is known exactly, both agree to many digits.

# %%
Z = np.array([[0.5], [-0.5]])
found = homogeneous.omega("relu", "product_of_norms", Z, X, key=jax.random.key(0), effort="quick")
print(found)
assert found.rigorous
assert 0 <= found.upper - found.lower <= 1e-6 * found.upper
assert len(found.params[0]) == 2

# %% [markdown]
# ## Pruning a network
#
# An output of n numbers needs at most n subnetworks, whatever the width. `prune` finds scales of given subnetworks with
# the same output and the smallest penalty, by one linear program. Most scales are zero.

# %%
digits, _, _ = datasets.load("digits")
samples = jnp.asarray(digits[: min(ROWS, 30)])
problem = homogeneous.Problem("relu", "sum_of_powers", losses.squared, 1.0)
wide = problem.phi.init(jax.random.key(0), r=400, dx=64, dy=10)
pruned = homogeneous.prune(problem, wide, samples)
before, after = (homogeneous.predict(problem, params, samples) for params in (wide, pruned))
costs = [float(jnp.sum(jax.vmap(problem.theta)(params))) for params in (wide, pruned)]
change = float(jnp.max(jnp.abs(after - before)) / jnp.max(jnp.abs(before)))
print(
    f"{len(wide[0])} neurons of penalty {costs[0]:.6g} -> {len(pruned[0])} of {costs[1]:.6g}; output moved {change:.1e}"
)
assert len(pruned[0]) <= before.size
assert change < 1e-10
assert costs[1] <= costs[0]

# %% [markdown]
# ## A penalty of another degree
#
# A network with three weight layers has degree 3, weight decay has degree 2. Near zero the penalty then dominates, so
# that zero weights are a local minimum for every width and every strength (HV17, supplement, Proposition 2). With the
# power 3 they are not, as long as lam is below `lam_max`. The picture shows the objective along one direction, and
# `zero_basin` proves how far the trap reaches.

# %%
inputs = jax.random.normal(jax.random.key(1), (min(ROWS, 60), 5))
decay, matched = (
    homogeneous.Problem("relu:3", homogeneous.sum_of_powers(power), losses.squared, 1.0) for power in (2, 3)
)
teacher = decay.phi.init(jax.random.key(2), r=1, dx=5, dy=1, widths=(4, 4))
targets = homogeneous.predict(decay, teacher, inputs)
zero = float(losses.squared(0 * targets, targets))

lam = 0.2 * float(homogeneous.lam_max(matched, inputs, targets, params=teacher, effort=EFFORT).lower)
decay, matched = (homogeneous.Problem(p.phi, p.theta, p.loss, lam) for p in (decay, matched))
basin = homogeneous.zero_basin(decay, inputs, targets, params=teacher, effort=EFFORT)
print(basin)

sizes = jnp.linspace(0, 1.4, 200)
unit = jax.tree.map(lambda w: w / jnp.linalg.norm(w), teacher)


def along(problem):
    """Return the change of the objective along the teacher's direction, over its value at zero."""
    values = jax.vmap(lambda t: homogeneous.objective(problem, jax.tree.map(lambda w: t * w, unit), inputs, targets))
    return (values(sizes) - zero) / zero


figure = plotting.figure((6, 3.6))
ax = figure.subplots()
for problem, name, color in ((decay, "weight decay, power 2", "#E69F00"), (matched, "power 3", "#0072B2")):
    ax.plot(sizes, along(problem), label=name, color=color, lw=2)
ax.axvspan(0, float(basin.radius), color="#BBBBBB", alpha=0.4, lw=0, label="trap, proved")
ax.axhline(0, color="#333333", lw=0.8)
ax.set(
    xlabel="norm of each layer",
    ylabel="change of the objective",
    title="from zero along one direction",
    ylim=(-0.3, 0.3),
)
ax.legend(fontsize="small")
figure

# %% [markdown]
# The values confirm the picture: inside the trap the first curve is above 0, while the second one falls at once.

# %%
inside = (sizes > 0) & (sizes <= basin.radius)
assert bool(jnp.all(along(decay)[inside] > 0))
assert bool(jnp.all(along(matched)[inside] < 0))

# %% [markdown]
# Training falls into the trap. We start inside it, with eight random seeds for each penalty, and descend. With weight
# decay all runs end at zero weights, although other weights have a much lower objective: those that the same descent
# finds from outside. With the matched penalty all runs leave zero.


# %%
def train(problem, key, size, steps=2000):
    """Run Adam from weights whose layers all have norm `size`; return the objective over its value at zero."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    start = problem.phi.init(key, r=8, dx=5, dy=1, widths=(4, 4))
    start = jax.tree.map(lambda w: size * w / jnp.linalg.norm(w, axis=(1, 2), keepdims=True), start)

    def step(carry, _):
        params, state = carry
        grad = jax.grad(homogeneous.objective, 1)(problem, params, inputs, targets)
        moves, state = optimizer.update(grad, state)
        return (optax.apply_updates(params, moves), state), None

    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return homogeneous.objective(problem, params, inputs, targets) / zero


keys = jax.random.split(jax.random.key(3), 8)
run = jax.jit(lambda problem, size: jax.vmap(lambda key: train(problem, key, size))(keys))
ends = {
    "weight decay, from inside": np.sort(run(decay, 0.9 * basin.radius)),
    "weight decay, from outside": np.sort(run(decay, 0.7)),
    "power 3, from inside": np.sort(run(matched, 0.9 * basin.radius)),
}
for name, values in ends.items():
    print(f"{name:<27} {np.round(values, 3)}")
inner, outer, leaving = ends.values()
assert np.min(inner) > 0.999
assert np.min(outer) < 0.9
assert np.max(leaving) < 0.999
