"""Figure 1 of KHK19: J over depth and width, at initial and at trained weights, on four data sets."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from globopt_jax import datasets, sweeps
from globopt_jax.inputs import one_of
from globopt_jax.origin import hash_arrays
from globopt_jax.reproductions.report import Experiment, Told, loaded, root_of, spread, table
from globopt_jax.sweeps.trends import trends

__all__ = ["Figure1", "Size"]


class Size(NamedTuple):
    """How large the experiment is."""

    depths: tuple[int, ...]
    """The numbers of hidden layers."""
    widths: tuple[int, ...]
    """The numbers of units of each hidden layer."""
    synthetic_widths: tuple[int, ...]
    """The same for the synthetic set, whose networks are small."""
    seeds: int
    """The number of networks of each shape."""
    epochs: int
    """The number of passes over the samples."""
    samples: int | None
    """The number of samples; None takes the paper's."""


PRESETS = {
    "quick": Size((1, 2, 3), (2, 4, 8), (2, 4, 8), seeds=2, epochs=5, samples=1000),
    "full": Size((1, 2, 3, 4, 5), (4, 8, 16, 32), (4, 8, 16, 32, 64), seeds=3, epochs=40, samples=None),
}
#: The data sets of the paper's figure, each with batch and momentum.
SETS = {"khk19-synthetic": (200, 0.9), "mnist": (64, 0.5), "cifar-10": (64, 0.5), "svhn": (64, 0.5)}


class Figure1(Experiment):
    """J over depth and width on the paper's data sets.

    Args:
        preset: quick or full.
        root: a folder with a folder of official files for each data set; None downloads them.
        only: the names of data sets; None takes all four.

    Raises:
        ValueError: the preset or a data set is unknown, or a file is damaged.
        FileNotFoundError: files are missing.
    """

    title = "Figure 1 of KHK19 again"

    def __init__(self, preset: str = "quick", root: pathlib.Path | None = None, only: Sequence[str] | None = None):
        if preset not in PRESETS:
            raise ValueError(f"preset: Expected: {' or '.join(PRESETS)}. Received: {preset!r}.")
        chosen = list(SETS) if only is None else list(only)
        for name in chosen:
            _ = one_of("data", name, SETS)
            if chosen.count(name) > 1:
                raise ValueError(f"data: Expected: different data sets. Received: {name} more than once.")
        self.preset, self.size = preset, PRESETS[preset]
        load = functools.partial(datasets.khk19, samples=self.size.samples)
        self.data = loaded({name: functools.partial(load, name, root_of(root, name)) for name in chosen})

    @property
    def configuration(self) -> dict[str, Any]:
        hashes = {name: hash_arrays({"X": data.X, "Y": data.Y}) for name, data in self.data.items()}
        return {"experiment": "khk19-figure-1", "preset": self.preset, **self.size._asdict(), "data": hashes}

    def run(self, folder: pathlib.Path, told: Told, client: Any = None) -> None:
        for name, data in self.data.items():
            batch, momentum = SETS[name]
            _ = sweeps.landscape(
                data.X.astype(np.float32),
                data.Y.astype(np.float32),
                depths=self.size.depths,
                widths=self.widths(name),
                seeds=self.size.seeds,
                epochs=self.size.epochs,
                batch=batch,
                momentum=momentum,
                store=store_of(folder, name),
                client=client,
                progress=lambda progress, name=name: told(name, progress),
            )

    def widths(self, name: str) -> tuple[int, ...]:
        """Return the widths for a data set."""
        return self.size.synthetic_widths if name == "khk19-synthetic" else self.size.widths

    def report(self, folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
        parts, numbers = [], {}
        for name, data in self.data.items():
            found = sweeps.Store(store_of(folder, name)).to_xarray()
            numbers[name] = {
                stage: found.J.sel(stage=stage).mean("seed").values.tolist() for stage in found.stage.values
            }
            parts.append(_section(name, data, found))
        return "\n\n".join([_ABOUT.format(epochs=self.size.epochs), *parts]), numbers

    def pictures(self, folder: pathlib.Path) -> dict[str, Any]:
        from globopt_jax import plotting  # late: it loads matplotlib

        figures = {}
        for name in self.data:
            found = sweeps.Store(store_of(folder, name)).to_xarray()
            figure = plotting.figure((10, 3.4))
            _ = plotting.landscape(figure.subplots(1, 2, sharey=True), found)
            figures[f"{name}.png"] = figure
        return figures


_ABOUT = """\
The figure shows `J(theta) = 1/2 ||PN[D] vec Y||^2`, the squared loss of every differentiable local minimum with the
tangent space of the network (Theorem 1), at random initial weights and after {epochs} epochs of training. The networks
are fully connected ReLU networks without biases. The paper prints J as colours without numbers; its text says that J
tends to decrease towards zero as the width or the depth increases, and that it tends to decrease along with training.
Below are means over the seeds with their standard deviations, and counts of how often J falls.

Settings that the paper states: stochastic gradient descent with learning rate 0.01, momentum 0.9 and batch 200 for the
synthetic set, 0.5 and 64 for images; initial weights of standard deviation `1/sqrt(d_l)`. It does not state how images
are made gray and resized, nor whether the loss of a batch is a sum or a mean; it is half the squared error, averaged
over the samples of the batch. Networks are trained in float32, J is computed in float64."""


def _section(name: str, data: datasets.Dataset, found: Any) -> str:
    """Return the part of the report on one data set."""
    counts, seconds = trends(found), float(found.seconds.sum())
    unsure = int((found.sure == 0).sum())
    diverged = int(found.J.sel(stage="trained").isnull().sum())
    total = found.J.sizes["seed"] * found.J.sizes["depth"] * found.J.sizes["width"]
    tables = []
    for stage in ("initial", "trained"):
        J = found.J.sel(stage=stage)
        rows = [
            (str(int(d)), [spread(J.sel(depth=d, width=w)) for w in found.width.values]) for d in found.depth.values
        ]
        tables.append(f"J, {stage}:\n\n" + table("depth \\\\ width", [str(int(w)) for w in found.width.values], rows))
    loss = found.loss.sel(stage="trained")
    rows = [(str(int(d)), [spread(loss.sel(depth=d, width=w)) for w in found.width.values]) for d in found.depth.values]
    tables.append("Loss, trained:\n\n" + table("depth \\\\ width", [str(int(w)) for w in found.width.values], rows))
    target = 0.5 * float(np.sum(np.square(data.Y)))
    said = [
        f"{data.description} Half of the squared targets is {target:.6g}.",
        counts.reason,
        f"{unsure} of {2 * total} values of J are from `tangent_projection`, since `tangent_value` was unsure; "
        f"{diverged} of {total} networks diverged. The computation took {seconds / 60:.1f} minutes.",
    ]
    return f"## {name}\n\n![J over depth and width]({name}.png)\n\n" + "\n\n".join([*said, *tables])


def store_of(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Return the file of the cells of one data set."""
    return folder / f"{name}.sqlite"
