"""The check of a run folder, from its files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from globopt_jax.npz import read_arrays
from globopt_jax.rigorous.check import CheckResult, check_records
from globopt_jax.rigorous.relaxation import Multipliers

__all__ = ["check_folder"]


def check_folder(folder: str | Path) -> CheckResult:
    """Check the certificate in a run folder.

    The files are problem.npz (X, Y), weights.npz (W1..WK), certificate.npz, certificate.json, and result.json if there
    is one. Objective, bounds and the numbers that follow from them are proved in every file that holds them. Estimates
    from searches are only compared with the proved numbers. Configuration and trace are not read.

    Args:
        folder: the run folder.

    Returns:
        A `CheckResult`, as by `check_certificate`.

    Raises:
        ValueError: a file is missing, or lacks an array or a key.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    needed = ("problem.npz", "weights.npz", "certificate.npz", "certificate.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: Expected: a run folder with a certificate. Received: none of {', '.join(missing)}."
        )
    meta = _read_json(folder / "certificate.json", ("problem", "claimed", "certificate"))
    data, weights, stored = (read_arrays(folder / name) for name in needed[:3])
    names = [f"W{k + 1}" for k in range(len(weights))]
    for file, arrays, keys in (
        ("problem.npz", data, ("X", "Y")),
        ("weights.npz", weights, names),
        ("certificate.npz", stored, (*_STORED, *(f"{p}{n}" for p in ("", "polar_") for n in Multipliers._fields))),
    ):
        if lacking := [key for key in keys if key not in arrays]:
            raise ValueError(f"{folder / file}: Expected: arrays {', '.join(keys)}. Received: no {lacking[0]}.")
    if any(stored[name].ndim for name in _STORED if name != "dual_point"):
        raise ValueError(f"{folder / 'certificate.npz'}: Expected: single numbers. Received: arrays.")
    records = {"certificate.json": meta["claimed"], "its certificate": meta["certificate"]}
    records["certificate.npz"] = {name: stored[name] for name in _STORED if name != "dual_point"}
    result: Any = None
    if (folder / "result.json").is_file():
        result = _read_json(folder / "result.json", ("certificate", "reason", "lam", "width"))
        records["result.json"] = result["certificate"]
    multipliers, at_weights = (Multipliers(*(stored[f"{p}{n}"] for n in Multipliers._fields)) for p in ("", "polar_"))
    kernels = [weights[name] for name in names]
    problem, V = meta["problem"], stored["dual_point"]
    checked = check_records(problem, kernels, V, multipliers, data["X"], data["Y"], records, at_weights)
    if checked.holds and result is not None:
        living = np.any([np.any(w.reshape(len(w), -1) != 0, axis=1) for w in kernels], axis=0)
        copy = result["certificate"]
        expected = {"lam": problem["lam"], "width": int(living.sum()), "reason": copy.get("reason")}
        for name, right in expected.items():
            if result[name] != right:
                reason = f"result.json: {name} is said to be {result[name]}; it is {right}."
                return checked._replace(holds=False, reason=reason)
    return checked


#: The arrays of certificate.npz beside the multipliers.
_STORED = ("objective", "lower_bound", "lower_bound_estimate", "polar_upper", "polar_lower", "rigorous", "lam")
_STORED += ("zero_subnetworks", "resolution", "targets_moved", "theta_proved", "bound_code", "dual_point")


def _read_json(path: Path, keys: Sequence[str]) -> Any:
    """Return the JSON mapping in a file, with these keys; ValueError for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: Expected: JSON. Received: something else ({error}).") from error
    if not isinstance(found, dict) or any(key not in found for key in keys):
        raise ValueError(f"{path}: Expected: {', '.join(keys)}. Received: something else.")
    for key in ("problem", "claimed", "certificate"):
        if key in keys and not isinstance(found[key], dict):
            raise ValueError(f"{path}: Expected: names and values in {key}. Received: {type(found[key]).__name__}.")
    return found
