# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Function space, and the paths of a ReLU network
#
# Two theories explain why a network may have no bad critical points. Yun, Sra and Jadbabaie (YSJ18, section 4) vary a
# whole layer as a function instead of its weights: then critical points are global under mild conditions. Koh (K18,
# section 2.2) writes a ReLU network as a sum over paths, and replaces the activity of each path by an independent coin,
# which makes the network linear. We look at both, and measure how far their assumptions are from real networks.

# %%
import itertools
import os

import jax
import jax.numpy as jnp
import optax

from globopt_jax import datasets, function_space, path_sums, plotting

ROWS = int(os.environ.get("GLOBOPT_NOTEBOOK_ROWS", "500"))  # the tests take fewer
jax.config.update("jax_enable_x64", True)
digits, targets, _ = datasets.load("digits")
X, Y = jnp.asarray(digits[:ROWS]), jnp.asarray(targets[:ROWS])

# %% [markdown]
# ## A layer as a variable
#
# The activation is a smooth leaky ReLU, whose slopes lie between 0.1 and 1. `derivative` is the derivative of the risk
# when a layer h changes in the direction of a function eta (YSJ18, equation (6)). It agrees with a difference quotient.


# %%
def smooth_leaky(t):
    """Return a smooth function with slopes between 0.1 and 1, and the value 0 at 0."""
    return 0.1 * t + 0.9 * (jax.nn.softplus(t) - jnp.log(2.0))


def draw(key, widths):
    """Return random kernels."""
    shapes = list(itertools.pairwise(widths))
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)]


kernels = draw(jax.random.key(0), (64, 32, 16, 10))
layers = function_space.layers_of(kernels, smooth_leaky)
V = jax.random.normal(jax.random.key(1), (32, 16))


def eta(z):
    """Return a change of the second layer."""
    return jnp.sin(z @ V)


def moved(t):
    """Return the risk with the second layer changed by t eta."""
    return function_space.risk([layers[0], lambda z: layers[1](z) + t * eta(z), layers[2]], X, Y)


found = function_space.derivative(layers, X, Y, eta, 2)
quotient = (moved(1e-5) - moved(-1e-5)) / 2e-5
print(f"(6): {found:.9f}, difference quotient: {quotient:.9f}")
assert abs(found - quotient) < 1e-6 * abs(quotient)

# %% [markdown]
# ## The inequality of Theorem 4.1
#
# If the Jacobian of the layers above the first one has smallest singular value at least eps everywhere, then the norm
# of the derivative times the distance from the best function is at least `2 eps (L - L*)`. So the derivative can
# vanish at a global minimum only. We train the weights and compare both sides. Training changes weights, not
# functions: it may stop where the derivative in weights vanishes and the one in functions does not.


# %%
@jax.jit
def train(kernels, steps=400):
    """Run Adam on the risk; return the kernels of all steps."""
    optimizer = optax.adam(3e-3)

    def value(kernels):
        return function_space.risk(function_space.layers_of(kernels, smooth_leaky), X, Y)

    def step(carry, _):
        params, state = carry
        moves, state = optimizer.update(jax.grad(value)(params), state)
        return (optax.apply_updates(params, moves), state), params

    return jax.lax.scan(step, (kernels, optimizer.init(kernels)), length=steps)[1]


history = jax.tree.map(lambda a: a[::40], train(kernels))
sides = jax.lax.map(lambda w: function_space.inequality(function_space.layers_of(w, smooth_leaky), X, Y), history)
for step, left, right in zip(range(0, 400, 40), sides.left, sides.right, strict=True):
    print(f"step {step:3d}: left {left:10.4g} >= right {right:10.4g}")
assert bool(jnp.all(sides.left >= sides.right))

# %% [markdown]
# The constant eps is the smallest singular value at the samples. `sigma_min_bound` is a lower bound over all inputs z:
# a product of bounds for the layers. It is far smaller, as a guarantee for all z must be.

# %%
everywhere = float(function_space.sigma_min_bound([kernel[-1] for kernel in history], slope=0.1))
print(f"smallest singular value at samples {float(sides.eps2[-1]):.3g}, proved for all inputs {everywhere:.3g}")
assert 0 < everywhere <= float(sides.eps2[-1])

# %% [markdown]
# ## Paths of a ReLU network
#
# K18's Theorem 2.6 assumes that each path from an input to an output is active with the same probability, on every
# sample. `path_activity` measures the active paths of a network without listing them: the share of active units of each
# layer, and each sample's share of active paths. The title says how well a multiple of the linear network, which the
# theorem puts in place of the ReLU network, predicts the output.


# %%
@jax.jit
def train_relu(kernels, steps=300):
    """Run Adam on the squared loss of a ReLU network; return the last kernels."""
    optimizer = optax.adam(2e-3)

    def value(kernels):
        return jnp.mean((path_sums.path_sum(kernels, X, path_sums.unit_masks(kernels, X)) - Y) ** 2)

    def step(carry, _):
        params, state = carry
        moves, state = optimizer.update(jax.grad(value)(params), state)
        return (optax.apply_updates(params, moves), state), value(params)

    (kernels, _), values = jax.lax.scan(step, (kernels, optimizer.init(kernels)), length=steps)
    return kernels, values


initial = draw(jax.random.key(2), (64, 32, 32, 32, 10))
trained, values = train_relu(initial)
assert values[-1] < 0.5 * values[0]
activities = [path_sums.path_activity(weights, X) for weights in (initial, trained)]
figure = plotting.figure((11, 3.8))
for ax, name, activity in zip(figure.subplots(1, 2), ("initial", "trained"), activities, strict=True):
    plotting.active_paths(ax, activity)
    ax.set_xlabel(f"{name} weights")
figure

# %% [markdown]
# The shares of active paths differ between samples, and the linear network misses most of the trained one's output: the
# theorem's assumption is a model, and not a description of this network.

# %%
activity = activities[-1]
print(f"active paths: {activity.rate:.3f} on average, standard deviation over samples {activity.over_samples:.3f}")
print(f"the best multiple of the linear network misses {activity.error:.1%} of the output")
assert activity.over_samples > 0
assert activity.error > 0.1
