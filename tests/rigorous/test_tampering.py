"""Run folders edited at random: a check that accepts one is held against exact rationals and 50 digits."""

import json
import shutil
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from globopt_jax import npz, rigorous
from globopt_jax.cli import app
from tests import oracles
from tests.oracles import exactly

#: A run of each kind of proof: (name, map, loss).
RUNS = [
    ("exact", "linear", "squared"),
    ("relaxation", "relu", "squared"),
    ("classes", "linear", "softmax_cross_entropy"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Finished runs of `globopt certify`, by name."""
    root, rng = tmp_path_factory.mktemp("finished"), np.random.default_rng(0)
    X, W1 = rng.normal(size=(8, 3)), 0.3 * rng.normal(size=(2, 3))
    folders = {}
    for name, kind, loss in RUNS:
        Y = np.eye(2)[rng.integers(2, size=8)] if loss == "softmax_cross_entropy" else rng.normal(size=(8, 2))
        np.savez(root / f"{name}.npz", X=X, Y=Y)
        np.savez(root / f"{name}.w.npz", W1=W1, W2=0.3 * rng.normal(size=(2, 2)))
        folders[name] = root / name
        options = ["--data", root / f"{name}.npz", "--map", kind, "--loss", loss, "--lam", 0.8, "--effort", "quick"]
        done = CliRunner().invoke(
            app, [str(a) for a in ("certify", root / f"{name}.w.npz", *options, "--out", folders[name], "--quiet")]
        )
        assert done.exit_code == 0, done.output
    return folders


# --- edits ------------------------------------------------------------------------------------------------------


def number_of_any_size(rng):
    return float(rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-17, 3))


def edited_array(rng, a):
    """One array with its values, its shape or its dtype changed."""
    kind = rng.integers(0, 24)
    with np.errstate(all="ignore"):
        if kind < 5:
            return a * (1 + number_of_any_size(rng))
        if kind < 10 and a.size and a.dtype.kind == "f":
            a = np.array(a)
            entry = tuple(rng.integers(0, n) for n in a.shape)
            values = [a[entry] * (1 + number_of_any_size(rng)), 0.0, -a[entry], np.nan, np.inf, 5e-324, 1e308]
            a[entry] = values[int(rng.integers(0, len(values)))]
            return a
        if kind < 17 and a.ndim:
            total = float(np.sum(a)) if a.dtype.kind == "f" else 0.0
            shapes = [a.ravel(), a.T, a[None], a[:1], a[..., :1], a[:0], np.concatenate([a, a]), np.zeros((0, 0))]
            shapes += [np.full((1, 1), total), np.abs(a)]
            return shapes[int(rng.integers(0, len(shapes)))]
        types = ["f4", "f2", "i8", "c16", "U8", ">f8", "?", "O", "f8", "u1"]
        return np.asarray(a).astype(types[int(rng.integers(0, len(types)))])


def edited_json(rng, value):
    """A tree with one leaf changed or one key gone."""
    if isinstance(value, dict) and value:
        key = list(value)[int(rng.integers(0, len(value)))]
        if rng.random() < 0.05:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: edited_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        k = int(rng.integers(0, len(value)))
        return [*value[:k], edited_json(rng, value[k]), *value[k + 1 :]]
    others = ["l2", None, True, -1, 0, 1e300, float("inf"), float("nan"), [], {}, 2, "1e9", 10**400]
    if isinstance(value, float | int) and not isinstance(value, bool) and rng.random() < 0.7:
        return value * (1 + number_of_any_size(rng))
    return others[int(rng.integers(0, len(others)))]


def tamper(rng, folder):
    """Change one file of the folder."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".npz", ".json"))
    likely = [p for p in files if p.name.startswith(("certificate", "result", "weights", "problem"))]
    path = likely[int(rng.integers(0, len(likely)))] if rng.random() < 0.9 else files[int(rng.integers(0, len(files)))]
    kind = rng.random()
    if kind < 0.1:
        raw = bytearray(path.read_bytes())
        raw[int(rng.integers(0, len(raw)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(raw if rng.random() < 0.8 else raw[: int(rng.integers(0, len(raw)))])
    elif path.suffix == ".json":
        path.write_text(json.dumps(edited_json(rng, json.loads(path.read_text()))))
    else:
        arrays = npz.read_arrays(path)
        name = list(arrays)[int(rng.integers(0, len(arrays)))]
        if rng.random() < 0.05:
            arrays[str(rng.choice(["W3", "X", "mu"]))] = arrays.pop(name)
        else:
            try:
                arrays[name] = edited_array(rng, arrays[name])
            except (ValueError, TypeError):
                return
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


# --- the judge --------------------------------------------------------------------------------------------------


def decimal(q):
    return Decimal(q.numerator) / Decimal(q.denominator)


def assert_true(folder):
    """Objective and lower bound of every file, from the pieces as they are stored, in exact arithmetic."""
    meta = json.loads((folder / "certificate.json").read_text())
    data, weights, stored = (npz.read_arrays(folder / f"{n}.npz") for n in ("problem", "weights", "certificate"))
    problem, X, Y, V = meta["problem"], data["X"], data["Y"], stored["dual_point"]
    records = [meta["claimed"], meta["certificate"], stored]
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_text())
        records.append(result["certificate"])
        assert result["reason"] == rigorous.sentence(result["certificate"])
    with localcontext() as context:
        context.prec = 50
        right = exact_objective(problem, weights["W1"], weights["W2"], X, Y)
        cuts = [stored[n] for n in ("mu", "Vz", "Vn", "N")]
        lower = max(exact_bound(problem, point, cuts, X, Y) for point in (V, np.zeros_like(Y)) if point.size)
        for record in records:
            value, bound = float(record["objective"]), float(record["lower_bound"])
            assert abs(Decimal(value) - right) <= Decimal("1e-12") * right
            assert Decimal(bound) <= lower
            for name, derived in (
                ("gap", value - bound),
                ("relative_gap", (value - bound) / value),
                ("lam", problem["lam"]),
            ):
                assert name not in record or float(record[name]) == pytest.approx(derived, rel=1e-12)
            assert "rigorous" not in record or bool(record["rigorous"]) == (bound > 0)


def exact_objective(problem, W1, W2, X, Y):
    """f of stacked neurons with l2 norms and sums of squares."""
    assert problem["theta"] == "sum_of_powers"
    assert problem["norms"] == ["l2", "l2"]
    slopes = [Fraction(s) for s in problem["slopes"]]
    a = oracles.product(exactly(X), oracles.transposed(exactly(W1)))
    Z = oracles.product([[slopes[1 if v > 0 else 0] * v for v in row] for row in a], exactly(W2))
    half = sum(Fraction(float(v)) ** 2 for w in (W1, W2) for v in w.ravel()) / 2
    cost = decimal(Fraction(problem["lam"]) * half)
    if problem["loss"] == "squared":
        return cost + decimal(
            sum((z - y) ** 2 for p, q in zip(Z, exactly(Y), strict=True) for z, y in zip(p, q, strict=True)) / 2
        )
    assert problem["loss"] == "softmax_cross_entropy"
    for z, y in zip(Z, exactly(Y), strict=True):
        cost += sum(decimal(v).exp() for v in z).ln() - decimal(sum(p * q for p, q in zip(z, y, strict=True)))
    return cost


def exact_bound(problem, V, multipliers, X, Y):
    """-loss*(V) where the polar at -V is at most lam for certain, else minus infinity."""
    v, y, x = exactly(V), exactly(Y), exactly(X)
    if problem["loss"] == "softmax_cross_entropy":
        totals = [sum(p) + sum(q) for p, q in zip(v, y, strict=True)]
        q = [[(a + b) / t for a, b in zip(p, q, strict=True)] for p, q, t in zip(v, y, totals, strict=True)]
        assert all(a >= 0 for row in q for a in row)
        v = oracles.combined(q, y, -1)
        value = -sum(decimal(a) * decimal(a).ln() for row in q for a in row if a)
    else:
        value = -decimal(sum(a * (a / 2 + b) for p, q in zip(v, y, strict=True) for a, b in zip(p, q, strict=True)))
    if not any(a for row in v for a in row):
        return value
    lam2, one = Fraction(problem["lam"]) ** 2, exactly(np.eye(len(x[0])))
    xt = oracles.transposed(x)
    if problem["bound"] == "linear":
        slope = Fraction(problem["slopes"][0])
        assert problem["slopes"][0] == problem["slopes"][1]
        M = oracles.product(xt, v)
        H = [[slope**2 * a for a in row] for row in oracles.product(M, oracles.transposed(M))]
    elif problem["bound"] == "product":
        # Edits of the kind of bound: spectral norms with a margin far above rounding, or not at all.
        slope = max(abs(s) for s in problem["slopes"])
        feasible = slope * np.linalg.norm(V, 2) * np.linalg.norm(X, 2) <= problem["lam"] * (1 + 1e-13)
        return value if feasible else Decimal("-Infinity")
    else:
        assert problem["bound"] == "relaxation"
        mu, Vz, Vn, N = multipliers
        assert np.all(mu > 0)
        assert all(np.all(a >= 0) for a in (Vz, Vn, N))
        negative, positive = (Fraction(s) for s in problem["slopes"])
        kappa, vt, D = positive - negative, oracles.transposed(v), exactly(np.diag(mu))
        Lam = [[negative * a for a in row] for row in oracles.product(vt, x)]
        cuts, n = exactly(np.hstack([Vz, Vn])), exactly(N)
        part = oracles.product(oracles.transposed(cuts), x)
        Psi = [[0 * a if k < Vz.shape[1] else -a for a in row] for k, row in enumerate(part)]
        M = oracles.combined(D, oracles.product(v, vt), -(kappa**2))
        M = oracles.combined(M, oracles.product(oracles.product(cuts, n), oracles.transposed(cuts)), -1)
        R = oracles.combined(oracles.product(D, x), oracles.product(v, Lam), 2 * kappa)
        R = oracles.combined(R, oracles.product(cuts, oracles.product(n, Psi)), 2)
        C = oracles.product(oracles.transposed(Lam), Lam)
        C = oracles.combined(C, oracles.product(oracles.transposed(Psi), oracles.product(n, Psi)))
        assert oracles.is_positive(M, strictly=True)
        H = oracles.combined(C, oracles.product(oracles.transposed(R), oracles.solved(M, R)), Fraction(1, 4))
    feasible = oracles.is_positive(oracles.combined([[lam2 * a for a in row] for row in one], H, -1))
    return value if feasible else Decimal("-Infinity")


def attacked(finished, tmp_path, edits):
    """How many of the edits were accepted; every one of these is true."""
    accepted = changed = 0
    for seed in range(edits):
        rng = np.random.default_rng(seed)
        name = RUNS[seed % len(RUNS)][0]
        copy = shutil.copytree(finished[name], tmp_path / str(seed))
        tamper(rng, copy)
        try:
            verdict = rigorous.check_folder(copy)
        except (ValueError, OSError):
            verdict = None  # unreadable, and said so
        if verdict is not None and verdict.holds:
            same = all(p.read_bytes() == (finished[name] / p.name).read_bytes() for p in copy.iterdir())
            accepted, changed = accepted + 1, changed + (not same)
            try:
                assert_true(copy)
            except AssertionError as error:
                raise AssertionError(f"{name}, seed {seed}: {verdict.reason}") from error
        shutil.rmtree(copy)
    return accepted, changed


def test_the_judge_agrees_with_honest_runs(finished):
    """Untouched folders hold, and are true."""
    for folder in finished.values():
        verdict = rigorous.check_folder(folder)
        assert verdict.holds, verdict.reason
        assert_true(folder)


def test_edits_are_noticed_or_harmless(finished, tmp_path):
    """A hundred random edits."""
    accepted, _ = attacked(finished, tmp_path, 100)
    assert accepted < 50


@pytest.mark.slow
def test_edits_are_noticed_or_harmless_at_length(finished, tmp_path):
    """Two thousand random edits."""
    accepted, changed = attacked(finished, tmp_path, 2000)
    print(f"\n2000 edits: {accepted} accepted, {changed} of them with a changed file")


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("result.json", "gap", 1e-9),
        ("result.json", "relative_gap", 1e-12),
        ("result.json", "lam", 1e3),
        ("result.json", "reason", "This is a global minimum."),
        ("result.json", "rigorous", False),
        ("result.json", "polar_upper", 0.1),
        ("result.json", "bound", "product"),
        ("result.json", "theta_proved", False),
        ("result.json", "resolution", 1.0),
        ("certificate.json", "gap", 1e-9),
        ("certificate.json", "polar_upper", 0.1),
        ("certificate.npz", "polar_upper", 0.1),
        ("certificate.npz", "lam", 1e3),
        ("certificate.npz", "rigorous", False),
        ("certificate.npz", "lower_bound_estimate", -1.0),
        ("certificate.npz", "bound_code", 1),
        ("certificate.json", "targets_moved", float("nan")),
    ],
)
def test_numbers_that_follow_from_others_are_derived(finished, tmp_path, file, name, value):
    """Each copy of a derived number that is edited is noticed."""
    copy = shutil.copytree(finished["relaxation"], tmp_path / "copy")
    if file.endswith(".json"):
        meta = json.loads((copy / file).read_text())
        meta["certificate"][name] = value
        (copy / file).write_text(json.dumps(meta))
    else:
        arrays = npz.read_arrays(copy / file)
        np.savez(copy / file, **{**arrays, name: np.asarray(value)})  # pyright: ignore[reportArgumentType]
    verdict = rigorous.check_folder(copy)
    assert not verdict.holds
    assert name in verdict.reason or "sentence" in verdict.reason or "estimate" in verdict.reason
