"""The record of a claim, the collection of all of them, and their verification."""

import collections
import difflib
import functools
import importlib
import pkgutil
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

import globopt_jax.claims
from globopt_jax import linalg
from globopt_jax.inputs import integer
from globopt_jax.shapes import Array

T = TypeVar("T")


def eps() -> float:
    """Return the machine epsilon of the dtype that the claims are tried in: float64 where x64 is on."""
    return linalg.machine_epsilon(jnp.zeros(()).dtype)


def remembered(make: Callable[[jax.Array], T]) -> Callable[[jax.Array], T]:
    """Return a function of a key that keeps its last results, which the claims of a family share."""

    @functools.lru_cache(maxsize=128)
    def kept(data: tuple[int, ...], precision: float) -> T:
        del precision  # so that results in float32 and float64 are kept apart
        return make(jax.random.wrap_key_data(jnp.asarray(data, jnp.uint32)))

    @functools.wraps(make)
    def of_key(key: jax.Array) -> T:
        return kept(tuple(np.asarray(jax.random.key_data(key)).tolist()), eps())

    return of_key


class Outcome(NamedTuple):
    """The result of a check, made by `outcome`. Its fields are 0-d arrays, so that a check can be vmapped over keys."""

    residual: Array
    """The amount by which the statement fails on the instance; 0 up to rounding if it holds."""
    tolerance: Array
    """The largest residual that rounding can explain."""
    control: Array | None
    """The residual of an instance on which the statement must fail; None if the check has no such instance."""
    holds: Array
    """A bool: whether residual <= tolerance and, if there is a control, control > tolerance."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a paper that can be tried on random instances."""

    key: str
    """The tag of the paper and the number of the statement, such as "HV17 Thm 1"."""
    statement: str
    """The statement in one sentence, in this package's notation."""
    paper: str
    """Authors, year and title of the paper."""
    equation: str
    """The place in the paper, such as "section 3, (12)"."""
    check: Callable[[jax.Array], Outcome]
    """The check: a function that draws an instance from a key, calls the library, and returns the outcome."""
    traceable: bool = False
    """Whether the check is an array function; then all instances are checked in one call, under `jit` and `vmap`."""
    family: str = ""
    """The name of the random instances: claims with the same name are tried on the same ones, so that they can share
    work; with the same check as well they are one statement, which is tried once. Empty is the key."""

    @property
    def drawn_for(self) -> str:
        """The name of the random instances."""
        return self.family or self.key


class Verdict(NamedTuple):
    """The outcome of one claim on random instances."""

    claim: Claim
    """The claim."""
    outcome: Outcome
    """The outcome of the worst instance: the residual that is largest beside its tolerance, and the control that is
    smallest beside its tolerance. It holds if every instance does."""
    instances: int
    """The number of instances."""
    failed: int
    """The number of instances on which the claim does not hold."""
    seconds: float
    """The time that the checks took, with compilation."""


def largest(*values: Any) -> float:
    """Return the largest of some numbers, or NaN if one of them is NaN, which Python's `max` may leave out."""
    return float(np.max([float(value) for value in values]))


def outcome(residual: Any, tolerance: Any, control: Any = None) -> Outcome:
    """Return the outcome of a check.

    The claim holds if ``residual <= tolerance`` and, with a control, ``control > tolerance``. With a NaN in one of them
    it does not hold.

    Args:
        residual: the residual () of an instance that satisfies the hypotheses of the statement.
        tolerance: the largest residual () that rounding can explain, from the dtype and the scale of the instance.
        control: the residual () of an instance that must violate the statement. The control detects checks that can
            never fail.

    Example:
        >>> bool(outcome(1e-15, 1e-12).holds), bool(outcome(1e-15, 1e-12, control=1e-14).holds)
        (True, False)
    """
    residual, tolerance = jnp.asarray(residual), jnp.asarray(tolerance)
    holds = residual <= tolerance
    if control is not None:
        control = jnp.asarray(control)
        holds = holds & (control > tolerance)
    return Outcome(residual, tolerance, control, holds)


def _papers() -> list[Any]:
    """Return the modules of the papers, in alphabetical order."""
    papers = [name for _, name, _ in pkgutil.iter_modules(globopt_jax.claims.__path__) if name != "registry"]
    return [importlib.import_module(f"globopt_jax.claims.{name}") for name in papers]


def statements() -> tuple[str, ...]:
    """Return the keys of the papers' statements that have claims: the tuples `STATEMENTS` of the papers' modules.

    A key is the tag of the paper and the number. The lists are kept by hand, in the order of the papers, beside the
    claims: a test compares the two. Lemmas that are tools of proofs and say nothing about networks are left out (YSJ18
    Lemma 3.3, KHK19 Lemmas 2 and 7), and so are tables and figures, which `globopt reproduce` has.

    >>> [key for key in statements() if key.startswith("NH17")]
    ['NH17 Assumption 3.2', 'NH17 Thm 3.4', 'NH17 Thm 3.8']
    """
    return tuple(key for module in _papers() for key in module.STATEMENTS)


def all_claims() -> tuple[Claim, ...]:
    """Return the claims of all papers: the tuples `CLAIMS` of the modules in this folder, in alphabetical order.

    Raises:
        AttributeError: the module of a paper has no `CLAIMS`.
        ValueError: two claims have the same key.

    >>> [claim.statement for claim in all_claims() if claim.key == "HV17 Thm 1"]
    ['A local minimum with one subnetwork all zero is a global minimum.']
    """
    claims = tuple(cast(Claim, claim) for module in _papers() for claim in module.CLAIMS)
    twice = [key for key, count in collections.Counter(claim.key for claim in claims).items() if count > 1]
    if twice:
        raise ValueError(f"claims: Expected: different keys. Received: the same key twice: {', '.join(twice)}.")
    return claims


def verify(
    seed: int,
    select: str | Sequence[str] | None = None,
    claims: Sequence[Claim] | None = None,
    instances: int = 1,
) -> Iterator[Verdict]:
    """Try claims on random instances, and yield each verdict as soon as it is known.

    An instance depends only on the seed, the family (or key) of the claim and its own number, and not on the selection.

    Args:
        seed: the seed of the random instances, of 64 bits.
        select: keys, or beginnings of keys, as in `chosen`. None selects all claims.
        claims: the claims to select from. None is `all_claims()`.
        instances: the number of random instances of each claim.

    Raises:
        ValueError: a selection matches no claim, or the number of instances is below 1. The error comes from the call,
            before any claim is tried.
    """
    claims, seed = chosen(select, claims), integer("seed", seed, -(2**63), 2**63 - 1)
    return _verdicts(seed, claims, integer("instances", instances))


def chosen(select: str | Sequence[str] | None = None, claims: Sequence[Claim] | None = None) -> Sequence[Claim]:
    """Return the claims whose keys begin with the selected words or numbers.

    Args:
        select: keys, or beginnings of keys in any case. A beginning ends at a space, a dot or a comma: "YSJ18 Thm 4"
            selects Theorems 4.1 and 4.2, and "HV17 Thm 1" does not select HV17 Thm 10. None selects all claims.
        claims: the claims to select from. None is `all_claims()`.

    Raises:
        ValueError: a selection matches no claim.

    >>> [claim.key for claim in chosen("ysj18 thm 4")]
    ['YSJ18 Thm 4.1', 'YSJ18 Thm 4.2']
    """
    claims = all_claims() if claims is None else claims
    if select is None:
        return claims
    wanted = [select] if isinstance(select, str) else select
    for words in wanted:
        if not any(_matches(claim, words) for claim in claims):
            known = [claim.key for claim in claims]
            near = difflib.get_close_matches(words, known, 3, 0.5)
            raise ValueError(
                f"select: Expected: a key, or its beginning up to a space or a dot; `globopt verify --list` shows all "
                f"{len(known)}. Received: {words!r}." + (f" Did you mean {' or '.join(near)}?" if near else "")
            )
    return [claim for claim in claims if any(_matches(claim, words) for words in wanted)]


def _verdicts(seed: int, claims: Sequence[Claim], instances: int) -> Iterator[Verdict]:
    tried: dict[Any, Outcome] = {}
    for claim in claims:
        start, same = time.perf_counter(), (claim.check, claim.drawn_for)
        try:
            if same not in tried:
                tried[same] = _outcomes(claim, seed, instances)
        except Exception as error:
            error.add_note(f"while checking {claim.key} with seed {seed}")
            raise
        found = tried[same]
        failed = instances - int(np.sum(found.holds))
        yield Verdict(claim, _worst(found), instances, failed, time.perf_counter() - start)


def _outcomes(claim: Claim, seed: int, instances: int) -> Outcome:
    """Return the outcomes of all instances, on a leading axis."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(claim.drawn_for.encode()))
    keys = [key, *(jax.random.fold_in(key, number) for number in range(1, instances))]
    if claim.traceable and instances > 1:
        found = jax.block_until_ready(jax.jit(jax.vmap(claim.check))(jnp.stack(keys)))
    else:
        found = _stacked([jax.block_until_ready(claim.check(key)) for key in keys])
    # In NumPy: programs for these few numbers would take longer to compile than most checks.
    return jax.tree.map(np.asarray, found)


def _stacked(outcomes: list[Outcome]) -> Outcome:
    """Return the outcomes of several instances as one with a leading axis."""
    return jax.tree.map(lambda *values: np.stack(values), *outcomes)


def _worst(found: Outcome) -> Outcome:
    """Return the worst residual and the weakest control of several instances; NaN is the worst of all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.nan_to_num(found.residual / found.tolerance, nan=np.inf)
        worst = np.argmax(excess)
        control = None
        if found.control is not None:
            control = found.control[np.argmin(np.nan_to_num(found.control / found.tolerance, nan=-np.inf))]
    return Outcome(found.residual[worst], found.tolerance[worst], control, np.asarray(np.all(found.holds)))


def _matches(claim: Claim, words: str) -> bool:
    start, key = (re.split(r"[\s.,]+", text.lower().strip(" .,")) for text in (words, claim.key))
    return key[: len(start)] == start
