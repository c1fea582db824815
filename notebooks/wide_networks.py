# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A wide layer, and no bad critical points
#
# Nguyen and Hein (NH17) study networks with biases and analytic activations such as tanh. If the features of a layer
# have rank N on N samples, and the layers above it keep signals apart, then every critical point fits the data. Made
# quantitative, this bounds the loss at any point by the gradient of one layer. We train a network on handwritten digits
# and watch the loss and its bounds.

# %%
import functools
import itertools
import os

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax import datasets, plotting, wide

ROWS = int(os.environ.get("GLOBOPT_NOTEBOOK_ROWS", "500"))  # the tests take fewer
jax.config.update("jax_enable_x64", True)

N = min(ROWS, 50)
digits, targets, _ = datasets.load("digits")
X, Y = jnp.asarray(digits[:N]), jnp.asarray(targets[:N])

# %% [markdown]
# ## Do the hypotheses hold?
#
# Assumption 3.2 asks for distinct samples, an analytic activation that increases strictly, and a loss without critical
# points other than its minimum. `assumption` checks each part, and names the one that fails.

# %%
print(wide.assumption(X, "tanh", "squared"))
print(wide.assumption(X, "relu", "squared"))
assert wide.assumption(X, "tanh", "squared").holds
assert not wide.assumption(X, "relu", "squared").holds

# %% [markdown]
# ## Training
#
# The network has one hidden layer, with more units than samples, and ten outputs. It has more weights than outputs on
# the samples, so that the method of Levenberg and Marquardt needs only the small matrix `J J^T`. The record keeps the
# weights of all steps.

# %%
WIDTHS = (64, N + 10, 10)
FUNCTIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus}


def network(params, X, activation):
    """Return the outputs: the activation on all layers but the last."""
    for kernel, bias in params[:-1]:
        X = FUNCTIONS[activation](jnp.matmul(X, kernel, precision="highest") + bias)
    return jnp.matmul(X, params[-1][0], precision="highest") + params[-1][1]


def draw(key, widths):
    """Return random weights and biases."""
    shapes = list(itertools.pairwise(widths))
    keys = jax.random.split(key, len(shapes))
    return [(jax.random.normal(k, s) / s[0] ** 0.5, jnp.zeros(s[1])) for k, s in zip(keys, shapes, strict=True)]


@functools.partial(jax.jit, static_argnames=("activation", "steps"))
def train(params, X, Y, activation, steps):
    """Run Levenberg-Marquardt steps; return the weights before each step, and at the end."""
    start, unravel = jax.flatten_util.ravel_pytree(params)

    def residual(flat):
        return jnp.ravel(network(unravel(flat), X, activation) - Y)

    def step(carry, _):
        flat, damping = carry
        r, J = residual(flat), jax.jacrev(residual)(flat)
        K = jnp.matmul(J, J.T, precision="highest")
        moved = flat - jnp.matmul(J.T, jnp.linalg.solve(K + damping * jnp.eye(len(r)), r), precision="highest")
        better = jnp.sum(residual(moved) ** 2) < jnp.sum(r**2)
        return (jnp.where(better, moved, flat), damping * jnp.where(better, 0.2, 5.0)), flat

    (end, _), seen = jax.lax.scan(step, (start, jnp.asarray(1.0)), length=steps)
    return jax.vmap(unravel)(jnp.concatenate([seen, end[None]]))


history = train(draw(jax.random.key(0), WIDTHS), X, Y, "tanh", steps=8)
steps = np.arange(len(history[0][0]))

# %% [markdown]
# ## The bounds
#
# `loss_bounds` bounds the loss by the gradient of each layer, in three forms. The product form multiplies singular
# values of kernels and smallest slopes. The per-sample form takes singular values of each sample's Jacobian. The
# kernel form takes the smallest eigenvalue of the layer's tangent kernel, and is the tightest. No bound is ever below
# the loss.

# %%
FORMS = ("product", "per_sample", "kernel")


@functools.partial(jax.jit, static_argnames="activation")
def bounds_of(history, X, Y, activation):
    """Return the losses, and the bounds of each form by the best layer."""
    found = jax.lax.map(lambda params: wide.loss_bounds(params, X, Y, activation), history)
    return found.loss, {form: jnp.min(getattr(found, form), axis=1) for form in FORMS}


losses, forms = bounds_of(history, X, Y, "tanh")
for form, values in forms.items():
    ratio = np.asarray(values / losses)
    print(
        f"{form:<10}  bound / loss: first {ratio[0]:.3g}, half way {ratio[len(ratio) // 2]:.3g}, last {ratio[-1]:.3g}"
    )
    assert np.all(values >= losses)
assert np.all(forms["kernel"] <= forms["product"] * (1 + 1e-6))

# %%
figure = plotting.figure((7, 4))
plotting.loss_bounds(figure.subplots(), steps, losses, {name.replace("_", " "): b for name, b in forms.items()})
figure

# %% [markdown]
# ## The end
#
# The theorem says that a critical point of such a network has no loss. Training agrees: the loss falls to a tiny part
# of the loss of zero outputs. `classify` names the point, with its evidence.

# %%
end = jax.tree.map(lambda a: a[-1], history)
print(f"loss over 1/2 ||Y||^2: {float(losses[-1] / (jnp.sum(Y**2) / 2)):.2e}")
print(wide.classify(end, X, Y, layer=1))
assert losses[-1] <= 1e-10 * jnp.sum(Y**2) / 2

# %% [markdown]
# ## Deeper networks and other activations
#
# The same for networks with three to five layers of weights, on 5 to 40 digits. The first hidden layer has 10 more
# units than there are samples. The ratios bound / loss are those after the first step whose loss is at most 1e-4 of
# `1/2 ||Y||^2`; the column "end" is the loss after the last step, over `1/2 ||Y||^2`.

# %%
ABOVE = ((12, 10), (14, 12, 10), (16, 14, 12, 10))  # the widths of the layers above the wide one
CASES = [(n, above, name) for n, above in zip((5, 20, 40), ABOVE, strict=True) for name in FUNCTIONS]


@functools.partial(jax.jit, static_argnames="activation")
def losses_of(history, X, Y, activation):
    """Return the losses of all steps, over half the squared targets."""
    return jax.vmap(lambda params: jnp.sum((network(params, X, activation) - Y) ** 2))(history) / jnp.sum(Y**2)


print(f"{'N':>2}  {'widths':<20} {'activation':<10}" + "".join(f"{name:>12}" for name in ("end", *FORMS)))
for n, above, activation in CASES if ROWS >= 500 else CASES[:1]:
    widths, part = (64, n + 10, *above), (X[:n], Y[:n])
    history = train(draw(jax.random.key(2), widths), *part, activation, steps=60)
    losses = losses_of(history, *part, activation)
    trained = int(np.argmax(losses <= 1e-4))
    loss, forms = bounds_of(jax.tree.map(lambda a, k=trained: a[k, None], history), *part, activation)
    ratios = [float(forms[form][0] / loss[0]) for form in FORMS]
    shape = "-".join(map(str, widths))
    print(f"{n:>2}  {shape:<20} {activation:<10}{losses[-1]:>12.1e}" + "".join(f"{ratio:>12.3g}" for ratio in ratios))
    assert losses[-1] <= 1e-10
    assert min(ratios) >= 1

# %% [markdown]
# ## Weights without training
#
# The proof's other half is constructive: if the features have rank N, the layers above can fit any targets.

# %%
fitted = wide.interpolate(draw(jax.random.key(1), WIDTHS), X, Y, layer=1)
print(fitted)
assert fitted.loss < 1e-14
