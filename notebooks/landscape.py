# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A landscape of J over depth and width
#
# J is half the squared distance from the targets to the tangent space of a network. At every differentiable local
# minimum the squared loss equals J, so that J says how good the local minima with this tangent space are. Kawaguchi,
# Huang & Kaelbling (2019, Figure 1) computed J for networks of many depths and widths, at random initial weights and
# after training: J tends to fall towards zero as the networks get wider or deeper.
#
# We repeat the experiment on handwritten digits. The networks of a sweep are kept in a store, a single file. This
# notebook first makes a store, and then does what you would do with one of your own: it opens the store, selects,
# averages and draws.

# %%
import os
import pathlib
import tempfile

from globopt_jax import datasets, plotting, sweeps

ROWS = int(os.environ.get("GLOBOPT_NOTEBOOK_ROWS", "500"))  # the tests take fewer
SMALL = ROWS < 100
DEPTHS, WIDTHS, SEEDS, EPOCHS = ([1, 2], [2, 4], 2, 2) if SMALL else ([1, 2, 3, 4], [2, 4, 8, 12], 3, 40)

# %% [markdown]
# ## A store
#
# `landscape` trains a network for each depth, width and seed, and measures it before and after training. With `store`,
# every finished network is in the file at once: if the process is killed, the same call computes what is missing.
# `globopt landscape --data digits` does the same from a shell, and leaves the store in its run folder.

# %%
folder = tempfile.TemporaryDirectory()
path = pathlib.Path(folder.name) / "cells.sqlite"
X, Y, _ = datasets.load("digits")
X, Y = X[:ROWS].astype("float32"), Y[:ROWS].astype("float32")
_ = sweeps.landscape(X, Y, depths=DEPTHS, widths=WIDTHS, seeds=SEEDS, epochs=EPOCHS, batch=16, store=path)

# %% [markdown]
# ## Open it
#
# `to_xarray` returns a Dataset with named dimensions. Its attributes are the settings to which the networks belong.

# %%
found = sweeps.Store(path).to_xarray()
print(found)
assert found.J.dims == ("depth", "width", "seed", "stage")
assert found.attrs["epochs"] == EPOCHS
assert not found.J.isnull().any(), "no network diverged"
assert (found.loss * (1 + 1e-5) >= found.J).all(), "the loss is never below J"

# %% [markdown]
# ## Select and average
#
# `sel` takes values of the coordinates, and `mean` and `std` run over a dimension. The spread over the seeds says which
# differences to believe.

# %%
trained = found.J.sel(stage="trained")
table = trained.mean("seed").to_pandas().round(1)
spread = trained.std("seed", ddof=1).to_pandas().round(1)
print(f"J after training, mean over {SEEDS} seeds (1/2 ||Y||^2 = {0.5 * (Y**2).sum():g}):\n{table}")
print(f"\nstandard deviation:\n{spread}")

# %% [markdown]
# ## Heat maps
#
# Both maps share one colour scale. `trends` counts in how many pairs of neighbouring shapes J falls; the title has
# its counts.

# %%
figure = plotting.figure((9, 3.4))
left, right = plotting.landscape(figure.subplots(1, 2, sharey=True), found)
figure

# %%
counts = sweeps.trends(found)
print(counts.reason)
pairs = len(DEPTHS) * (len(WIDTHS) - 1)
assert counts.width[0].sum() == pairs, "no cell is missing"
assert counts.width[0][0] > pairs / 2, "before training, J falls with the width"

# %% [markdown]
# ## J against the width
#
# One line for each depth, with the range over the seeds. The loss after training is dotted: it is what the networks
# reached, and it is never below J.

# %%
figure = plotting.figure((9, 3.4))
left, right = figure.subplots(1, 2, sharey=True)
for ax, stage in ((left, "initial"), (right, "trained")):
    for number, depth in enumerate(DEPTHS):
        J = found.J.sel(stage=stage, depth=depth)
        ax.fill_between(WIDTHS, J.min("seed"), J.max("seed"), color=f"C{number}", alpha=0.2, lw=0)
        ax.plot(WIDTHS, J.mean("seed"), color=f"C{number}", marker="o", label=f"depth {depth}")
        if stage == "trained":
            ax.plot(WIDTHS, found.loss.sel(stage=stage, depth=depth).mean("seed"), color=f"C{number}", ls=":")
    ax.set(title=stage, xlabel="width", xscale="log")
    ax.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    ax.minorticks_off()
right.legend(frameon=False)
left.set(ylabel="J", ylim=0)
figure

# %% [markdown]
# ## Where training raises J
#
# Training moves the tangent space, and nothing in it aims at a small J. In narrow networks it often raises J. Units
# die, and a dead unit adds nothing to the tangent space, so that the rank, which is the dimension of that space, falls.

# %%
changes = found[["J", "rank"]].mean("seed").sel(stage="trained") - found[["J", "rank"]].mean("seed").sel(
    stage="initial"
)
for name in ("J", "rank"):
    print(f"change of {name} by training, mean over the seeds:\n{changes[name].to_pandas().round(1)}\n")
raised = changes.J > 0
print(
    f"training raises J in {int(raised.sum())} cells; the rank falls in {int((raised & (changes['rank'] < 0)).sum())}"
)

# %% [markdown]
# ## What one sees
#
# J falls with the width at every depth, before and after training: more weights span a larger tangent space. For the
# depth the picture is less clear. At random weights deeper networks of the same width have a larger J here, and after
# training the differences between depths are of the size of the spread over the seeds. The paper's networks are wider
# and its data sets larger; `globopt landscape` runs at its sizes.

# %%
widest, narrowest = (found.J.sel(stage="trained", width=w).mean() for w in (WIDTHS[-1], WIDTHS[0]))
print(f"mean J after training: {float(narrowest):.4g} at width {WIDTHS[0]}, {float(widest):.4g} at width {WIDTHS[-1]}")
assert widest < narrowest
folder.cleanup()
