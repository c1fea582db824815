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
# A small ReLU network is trained on handwritten digits in the ordinary way, with Adam and weight decay. Is
# it any good? Not on test data, but as a solution of the problem it was trained on: how far is it from the
# global minimum, over all widths? We grade it, go on where the certificate says that there is more to gain,
# and grade it again.

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
# `loss + lam * 1/2 (||W1||^2 + ||W2||^2)` is the sum of squares with weight decay. At `lam_max` and above,
# the zero network is the best there is; we take a fifth of it. The two numbers are what a search found and
# what is proved.

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
    """Adam on the objective, a few hundred steps."""
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
# The lower bound holds for networks of any width, not just six neurons. `polar_lower` above `lam` means
# that a seventh neuron was found that lowers the objective.

# %%
before = homogeneous.certify(problem, trained, X, Y, effort=EFFORT)
print(before)
assert before.rigorous
assert 0 < before.lower_bound < before.objective

# %% [markdown]
# ## Going on
#
# `minimize` starts from these weights: it descends, looks for the best direction to append, and repeats
# until there is none. The trace says what it did; the objective never increases.

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
# Both bounds are true of the same problem, so neither exceeds what anybody reached.
assert max(before.lower_bound, after.lower_bound) <= after.objective

# %% [markdown]
# ## The picture
#
# The polar is the largest inner product that one neuron of penalty 1 can have with the residual. The picture shows it
# along the circle of hidden directions that the two largest neurons span. Where the polar is above lam, a neuron in
# that direction lowers the objective. After Adam a search found such a neuron (dashed). After `minimize` the polar
# equals lam at the neurons and exceeds it nowhere on the circle. The green line is the ceiling that the certificate
# proves for all directions.

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
