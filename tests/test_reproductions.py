"""The papers' experiments at tiny sizes, and their choices and sentences on accuracies that are made up."""

import contextlib
import json
import pathlib
import sqlite3
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from globopt_jax import datasets, sweeps
from globopt_jax.cli import app
from globopt_jax.reproductions import EXPERIMENTS, k18, khk19
from globopt_jax.reproductions.report import spread
from globopt_jax.sweeps.plan import AXES, column

FIGURE = khk19.Size((1, 2), (2, 3), (2, 3), seeds=2, epochs=2, samples=60)
TABLE = k18.Size(3, (1, 2, 4), (0.05, 0.2), seeds=2, batch=64, samples=None)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(khk19.PRESETS, "quick", FIGURE)
    monkeypatch.setitem(k18.PRESETS, "quick", TABLE)


def command(*arguments: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def test_the_figure_from_end_to_end(tmp_path):
    out = tmp_path / "run"
    done = command("khk19-figure-1", "--data", "khk19-synthetic", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found = sweeps.Store(out / "khk19-synthetic.sqlite").to_xarray()
    assert dict(found.sizes) == {"depth": 2, "width": 2, "seed": 2, "stage": 2}
    result = json.loads(done.stdout)
    mean = found.J.mean("seed").sel(stage="trained").values
    np.testing.assert_allclose(result["numbers"]["khk19-synthetic"]["trained"], mean)
    report = (out / "report.md").read_text()
    assert spread(found.J.sel(depth=2, width=3, stage="trained")) in report
    assert "after 2 epochs of training" in report
    assert "J falls in" in report
    assert (out / "khk19-synthetic.png").read_bytes().startswith(b"\x89PNG")
    assert found.attrs["batch"] == 200
    assert found.attrs["optimizer"] == "optax._src.alias.sgd(rate, momentum=0.9)"
    again = command("khk19-figure-1", "--data", "khk19-synthetic", "--out", out, "--json")
    assert json.loads(again.stdout) == result
    with contextlib.closing(sqlite3.connect(out / "khk19-synthetic.sqlite")) as store:
        _ = store.execute("UPDATE cells SET J_trained = 0")
        store.commit()
    lying = command("khk19-figure-1", "--data", "khk19-synthetic", "--out", out)
    assert lying.exit_code == 2
    assert "result.json: Expected: the numbers of the stored networks" in " ".join(lying.stderr.split())
    (out / "khk19-synthetic.sqlite").unlink()
    empty = command("khk19-figure-1", "--data", "khk19-synthetic", "--out", out)
    assert empty.exit_code == 2
    assert "Expected: all networks of this finished run" in " ".join(empty.stderr.split())
    other = command("khk19-figure-1", "--data", "khk19-synthetic", "--out", out, "--preset", "full")
    assert other.exit_code == 2
    assert "preset is" in other.stderr
    (out / "report.md").unlink()
    lacking = command("khk19-figure-1", "--data", "khk19-synthetic", "--out", out)
    assert lacking.exit_code == 2
    assert "report.md: Expected: the report of this finished run. Received: none" in lacking.stderr


def test_a_table_from_end_to_end(tmp_path):
    """On the digits, since the images of CIFAR-10 do not come with the package."""
    out = tmp_path / "run"
    done = command("k18-table-4.1", "--data", "digits", "--out", out)
    assert done.exit_code == 0, done.output
    tuning = sweeps.Store(out / "tuning.sqlite").rows()
    assert len(tuning) == 2 * 2 * (1 + 3 * 3)  # rows, rates, strengths
    result = json.loads((out / "result.json").read_text())
    chosen = result["numbers"]["settings"]
    for kind in ("tuned", "budget"):
        for penalty, settings in chosen[kind].items():
            stored = sweeps.Store(k18.Choice(**settings).store(out, penalty))
            assert len(stored.rows()) == 4 * 2
            assert (stored.identity or {})["epochs"] == settings["epochs"]
    settings = chosen["tuned"]["l2"]
    stage = "trained" if settings["epochs"] == 4 else f"epoch {settings['epochs']}"
    tuned = [row for row in tuning if (row["penalty"], row["lam"]) == ("l2", settings["lam"])]
    at_rate = [row[column("test_accuracy", stage)] for row in tuned if row["rate"] == settings["rate"]]
    assert settings["accuracy"] == pytest.approx(np.mean(at_rate))
    report = (out / "report.md").read_text()
    for printed in ("23.48", "34.54", "31.87"):
        assert printed in report
    cells = sweeps.Store(k18.Choice(**settings).store(out, "l2")).rows()
    accuracies = [100 * row[column("test_accuracy", "trained")] for row in cells if row["depth"] == 3]
    assert spread(accuracies) in report
    assert report.count("the matched penalty") == 6


class Made(k18.Table41):
    """Table 4.1 without data."""

    thesis: ClassVar = {"none": (0, 20.0, 30.0, 0), "l1": (0,) * 4, "l2": (0,) * 4, "l3": (0,) * 4}

    def __init__(self) -> None:
        self.size = TABLE
        self.test = datasets.Dataset(np.zeros((10_000, 1)), np.zeros((10_000, 1)), None)


def made_up(folder: pathlib.Path, accuracy: Any) -> Made:
    """Store made-up accuracies of tuning."""
    with sweeps.Store(folder / "tuning.sqlite") as store:
        store.claim({"data": "x", "stages": ["initial", "epoch 1", "epoch 2", "trained"]})
        for penalty, lams in k18.STRENGTHS.items():
            for lam in lams:
                for rate in TABLE.rates:
                    for depth in (1, 2):
                        row = dict(zip(AXES, (depth, 3, 1, penalty, lam, rate, 7), strict=True))
                        for stage in ("epoch 1", "epoch 2", "trained"):
                            row[column("test_accuracy", stage)] = accuracy(penalty, lam, rate, stage, depth)
                        store.write([row])
    return Made()


def test_tuning_takes_the_best_mean_over_the_rows(tmp_path):
    def accuracy(penalty, lam, rate, stage, depth):
        if (penalty, lam, rate, stage) == ("l2", 1e-4, 0.05, "epoch 2"):
            return 0.7
        if (penalty, lam, rate, stage) == ("l2", 1e-3, 0.2, "trained"):
            return 0.9 if depth == 1 else 0.4  # the best row, and a smaller mean
        return 0.1

    found = made_up(tmp_path, accuracy).choices(tmp_path)["l2"]
    assert found[:3] == (1e-4, 0.05, 2)
    assert found.accuracy == pytest.approx(0.7)


def test_the_budget_is_the_one_closest_to_the_thesis(tmp_path):
    def accuracy(penalty, lam, rate, stage, depth):
        near = (rate, stage) == (0.2, "epoch 1")
        if penalty == "none":
            return (0.19 if depth == 1 else 0.31) if near else 0.9
        return 0.5 if lam == k18.STRENGTHS[penalty][1] else 0.6 if not near else 0.2

    table = made_up(tmp_path, accuracy)
    found = table.budget(tmp_path)
    assert {(c.rate, c.epochs) for c in found.values()} == {(0.2, 1)}
    assert found["l3"].lam == k18.STRENGTHS["l3"][1]
    assert table.choices(tmp_path)["none"].accuracy == pytest.approx(0.9)


def test_the_reading_compares_with_the_noise():
    """Seeds are paired, since they share the orders of samples."""
    rows = {row: [30.0, 31.0, 32.0] for row in (0, 1, 2, 3)}
    better = {row: [30.5, 31.4, 32.6] for row in (0, 1, 2, 3)}
    said = Made()._reading({"none": rows, "l1": rows, "l2": better, "l3": rows}).splitlines()
    assert "1 hidden layer: the matched penalty l2 beats the best other column, none, by 0.50 ± 0.06 points" in said[1]
    assert "clear of the noise" in said[1]
    assert "2 hidden layers: the matched penalty l3 loses to the best other column, l2, by 0.50" in said[2]
    said = Made()._reading({"none": rows, "l1": rows, "l2": rows, "l3": rows}).splitlines()
    assert said[1] == (
        "- 1 hidden layer: the matched penalty l2 and the best other column, none, differ by less than 0.01 points, "
        "a single one of the test images."
    )
    noisy = {row: [27.0, 35.0, 31.6] for row in (0, 1, 2, 3)}
    said = Made()._reading({"none": rows, "l1": noisy, "l2": rows, "l3": rows}).splitlines()
    assert "within the noise" in said[0]
    three = {row: [30.5, 32.0, 33.5] for row in (0, 1, 2, 3)}  # 3.5 standard errors, and three seeds need 4.3
    said = Made()._reading({"none": rows, "l1": rows, "l2": three, "l3": rows}).splitlines()
    assert "by 1.00 ± 0.29 points (standard error of 3 paired seeds), which is within the noise" in said[1]
    two = {penalty: {row: [30.0, 31.0 + (penalty == "l2")] for row in (0, 1, 2, 3)} for penalty in k18.STRENGTHS}
    said = Made()._reading(two).splitlines()
    assert "so few seeds cannot tell this from noise" in said[1]
    assert said[3] == "- 3 hidden layers: no column has the degree of the network."


def test_settings_at_an_end_of_what_was_tried_are_named():
    inside = {p: k18.Choice(lams[len(lams) // 2], 0.1, 2, 0.5) for p, lams in k18.STRENGTHS.items()}
    table = Made()
    table.size = TABLE._replace(rates=(0.05, 0.1, 0.2), epochs=(1, 2, 4))
    assert table._edges(inside) == ""
    outside = inside | {"l2": k18.Choice(1e-3, 0.2, 2, 0.5), "l1": k18.Choice(1e-5, 0.05, 4, 0.5)}
    said = table._edges(outside).strip()
    assert said == "At an end of what was tried: lam in l2; rate in l1 and l2; epochs in l1."


def test_all_missing_files_are_named(tmp_path):
    found = command("khk19-figure-1", "--root", tmp_path, "--out", tmp_path / "run")
    assert found.exit_code == 2
    for name in ("train-images-idx3-ubyte.gz", "cifar-10-binary.tar.gz", "train_32x32.mat"):
        assert name in found.stderr
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin .*test_batch\.bin "):
        k18.Table41(root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_few_images_for_a_preset_are_named(tmp_path, monkeypatch):
    from tests.datasets import packages

    monkeypatch.setitem(k18.PRESETS, "quick", TABLE._replace(samples=3000))
    for name, raw in packages.CIFAR.items():
        (tmp_path / name).write_bytes(raw)
    done = command("k18-table-4.1", "--root", tmp_path, "--out", tmp_path / "run")
    assert done.exit_code == 2
    words = " ".join(done.stderr.split())
    assert "--root: Expected: files with 3,000 training samples or more" in words
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("figure-1",), "EXPERIMENT: Expected: one of khk19-figure-1, k18-table-4.1, k18-table-4.2. Received: 'figure"),
        (("khk19-figure-1", "--preset", "huge"), "globopt: --preset: Expected: quick or full. Received: 'huge'"),
        (
            ("khk19-figure-1", "--data", "mnist,letters"),
            "--data: Expected: one of khk19-synthetic, mnist, cifar-10, svhn",
        ),
        (
            ("k18-table-4.2", "--data", "digits,mnist"),
            "--data: Expected: one data set. Received: digits, mnist",
        ),
        (("k18-table-4.2", "--root", "."), "globopt: --root: Expected: a folder with"),
        (
            ("khk19-figure-1", "--data", "mnist,mnist"),
            "--data: Expected: different data sets. Received: mnist more",
        ),
        (("k18-table-4.1", "--data", "letters"), "globopt: --data: Expected: one of digits, mnist"),
        (("khk19-figure-1", "--scheduler", "nowhere:1", "--data", "khk19-synthetic"), "--scheduler: Expected:"),
    ],
)
def test_arguments(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_every_experiment_has_a_full_size():
    assert set(EXPERIMENTS) == {"khk19-figure-1", "k18-table-4.1", "k18-table-4.2"}
    full = khk19.PRESETS["full"]
    assert max(full.widths) >= 32
    assert max(full.synthetic_widths) >= 64
    assert (full.seeds, full.epochs, len(full.depths)) == (3, 40, 5)
    assert (k18.PRESETS["full"].width, k18.PRESETS["full"].seeds) == (500, 3)
    assert [table.longest in k18.PRESETS["full"].epochs for table in (k18.Table41, k18.Table42)] == [True, True]
