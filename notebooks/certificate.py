# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # From weights to a certificate
#
# We train a small ReLU network on handwritten digits in the ordinary way, with Adam and weight decay. Then we ask how
# far its objective is from the global minimum over networks of all widths. The question is about the training problem,
# not about test data. A certificate answers it: it grades the weights. Where the certificate leaves room for
# improvement, we continue with `minimize`, and grade the result again.

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

X, Y, labels = datasets.load("digits")
X, Y = jnp.asarray(X[:ROWS]), jnp.asarray(Y[:ROWS])

# %% [markdown]
# ## The problem
#
# The objective is the squared loss with weight decay, `loss + lam * 1/2 (||W1||^2 + ||W2||^2)`. For `lam >= lam_max`
# the zero network is a global minimum; we take a fifth of `lam_max`. Of the two numbers, a search found the lower one,
# and the upper one is proved.

# %%
phi = homogeneous.relu_neuron()
problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, 1.0)
start = phi.init(jax.random.key(0), r=6, dx=64, dy=10)
most = homogeneous.lam_max(problem, X, Y, params=start, effort="quick")
print(f"lam_max lies between {most.lower:.6g} and {most.upper:.6g}")
assert most.lower <= most.upper

problem = homogeneous.Problem(phi, problem.theta, problem.loss, 0.2 * float(most.lower))

# %% [markdown]
# ## Training as usual


# %%
@jax.jit
def train(params, steps=300):
    """Run a few hundred steps of Adam on the objective."""
    optimizer = optax.adam(0.01)

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(homogeneous.objective, 1)(problem, params, X, Y)
        moves, state = optimizer.update(grad, state)
        return (optax.apply_updates(params, moves), state), value

    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    return params, values


trained, values = train(start)
print(f"from {values[0]:.6g} to {values[-1]:.6g}")
assert values[-1] < values[0]

# %% [markdown]
# ## The certificate
#
# The lower bound holds for networks of every width, not only for six neurons. The polar is the largest inner product
# that one neuron of penalty 1 can have with the residual (more precisely, with minus the loss's gradient). If
# `polar_lower`, the best value that a search found, exceeds `lam`, then a seventh neuron lowers the objective.

# %%
before = homogeneous.certify(problem, trained, X, Y, effort=EFFORT)
print(before)
assert before.rigorous
assert 0 < before.lower_bound < before.objective

# %% [markdown]
# ## Continuing with `minimize`
#
# `minimize` starts from these weights. It runs a descent, searches for neurons that lower the objective, appends them,
# and repeats until a search finds none. The trace lists the steps. The objective never increases.

# %%
found = homogeneous.minimize(problem, trained, X, Y, key=jax.random.key(1), effort=EFFORT)
for event, width, value in zip(found.trace.events, found.trace.width, found.trace.objective, strict=True):
    print(f"{value:14.8f}  r = {width:<3d} {event}")
assert np.all(np.diff(found.trace.objective) <= 1e-12 * found.trace.objective[:-1])

# %%
after = found.certificate
print(after)
assert after.objective < before.objective
assert after.relative_gap < before.relative_gap
# Both bounds hold for the same problem, so that neither exceeds an objective that was reached.
assert max(before.lower_bound, after.lower_bound) <= after.objective

# %% [markdown]
# ## The picture
#
# The picture shows the largest inner product of a neuron with the residual for each hidden direction on a circle, the
# one that the two largest neurons span. Where this value is above lam, a neuron in that direction lowers the objective.
# After Adam, a search found such a neuron (dashed line). After `minimize`, the value equals lam at the neurons and
# exceeds lam nowhere on the circle. The green line is the upper bound that the certificate proves for all directions.

# %%
figure = plotting.figure((11, 3.8))
for ax, name, params, graded in zip(
    figure.subplots(1, 2), ("Adam", "minimize"), (trained, found.params), (before, after), strict=True
):
    curve = plotting.polar_curve(problem, params, X, Y)
    assert curve is not None
    plotting.polar(ax, curve, graded)
    ax.text(0.02, 0.5, f"after {name}", transform=ax.transAxes, weight="bold")
figure
