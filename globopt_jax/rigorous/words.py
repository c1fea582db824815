"""Numbers and certificates in words, rounded to the safe side."""

import math
import sys
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

__all__ = ["IN_WORDS", "at_least", "at_most", "relative", "sentence"]

#: The numbers that `sentence` needs.
IN_WORDS = {"objective", "lower_bound", "relative_gap", "gap_estimate", "polar_lower", "lam", "rigorous", "resolution"}
IN_WORDS |= {"targets_moved", "theta_proved"}


def at_most(value: float, digits: int = 3) -> str:
    """Return the number with a few digits, rounded up.

    >>> at_most(0.12341)
    '0.124'
    """
    return _rounded(value, digits, ROUND_CEILING)


def at_least(value: float, digits: int = 3) -> str:
    """Return the number with a few digits, rounded down.

    >>> at_least(0.12341)
    '0.123'
    """
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value):
        return str(float(value))
    return f"{Context(prec=digits, rounding=rounding).create_decimal(float(value)):.{digits}g}"


def relative(difference: float, objective: float) -> float:
    """Return a difference of objectives divided by the absolute value of the objective.

    >>> relative(0.5, 2.0)
    0.25
    """
    return difference / max(abs(objective), sys.float_info.min)


def sentence(certificate: Mapping[str, Any]) -> str:
    """Return the numbers of a certificate in a few sentences; proved numbers are rounded to the safe side.

    Args:
        certificate: the fields of a certificate by name, at least the numbers in `IN_WORDS`.

    Returns:
        The sentences.

    Raises:
        KeyError: a number is missing.
    """
    number = {name: float(value) for name, value in certificate.items() if name in IN_WORDS}
    value, gap, over = number["objective"], number["relative_gap"], number["polar_lower"] / number["lam"]
    # A small gap asks for many digits, so that objective and bound differ in the words too.
    digits = 6 if not 0 < gap < 1e-4 else min(2 - math.floor(math.log10(gap)), 17)
    lower = at_least(number["lower_bound"], digits)
    text = f"The objective is {value:.{digits}g}; no network of any width goes below {lower}. "
    if certificate.get("bound") == "none":
        text += "For this map and penalty no bound but the trivial one is known: the rest is an estimate. "
    elif not number["rigorous"]:
        text += "That bound is the trivial one: nothing better was proved. "
    if not number["theta_proved"]:
        text += "It rests on a penalty that is nowhere negative, which was tried at random weights and not proved. "
    if number["targets_moved"] > 0:
        text += (
            f"The targets were completed to rows that sum to 1 exactly (entries moved by up to "
            f"{number['targets_moved']:.2g}), and the objective is that of these. "
        )
    if gap < 0:  # not by rounding, which was clipped before
        text += "The two contradict each other: a bound is wrong, or a penalty is negative somewhere. "
    elif gap <= number["resolution"]:
        text += f"This is a global minimum to the precision of the computation ({number['resolution']:.1g}). "
    else:
        text += f"So at most {at_most(100 * gap)} % of it can be gained. "
    if over > 1 + 1e-4:
        return text + f"A search found a direction with a polar of {over:.5g} lam: appending it goes down."
    estimate = 100 * relative(number["gap_estimate"], value)
    return text + (
        f"A search found no direction whose polar stands out above lam (at most {over:.7g} lam; estimated gap "
        f"{estimate:.3g} %)."
    )
