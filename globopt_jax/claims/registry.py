"""The record of a claim, the collection of all of them, and their verification."""

import collections
import importlib
import pkgutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

import globopt_jax.claims
from globopt_jax import linalg


def eps() -> float:
    """Return the machine epsilon of the dtype that the claims are tried in: float64 where x64 is on."""
    return linalg.machine_epsilon(jnp.zeros(()).dtype)


class Outcome(NamedTuple):
    """What a check found; all arrays, so that a check can be vmapped over keys. Made by `outcome`."""

    residual: jax.Array
    """How far the statement is from holding on this instance, ()."""
    tolerance: jax.Array
    """What rounding may account for, ()."""
    control: jax.Array | None
    """The residual of an instance where the statement must fail, (); None if there is none."""
    holds: jax.Array
    """Whether residual <= tolerance, and control > tolerance: bool, ()."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a paper that can be tried on random instances."""

    key: str
    """The tag of the paper and the number, "HV17 Thm 1"."""
    statement: str
    """One sentence, in this package's notation."""
    paper: str
    """Authors, year and title."""
    equation: str
    """Where it stands, "section 3, (12)"."""
    check: Callable[[jax.Array], Outcome]
    """Draws an instance from a key, calls the library, and returns the outcome."""


class Verdict(NamedTuple):
    """A claim and its outcome."""

    claim: Claim
    outcome: Outcome
    seconds: float


def outcome(residual: Any, tolerance: Any, control: Any = None) -> Outcome:
    """Judge a residual: it holds if `residual <= tolerance` and, with a control, `control > tolerance`.

    A NaN holds nowhere.

    Args:
        residual: of the instance that satisfies the statement's hypotheses, ().
        tolerance: (); derive it from the dtype and the scale of the instance.
        control: the residual of an instance that must violate the statement, (); it finds out a check that
            cannot fail.

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


def all_claims() -> tuple[Claim, ...]:
    """Collect the claims of every paper: `CLAIMS` of each module of this folder, in order.

    Raises:
        AttributeError: if a paper's module has no `CLAIMS`.
        ValueError: if two claims share a key.
    """
    papers = [name for _, name, _ in pkgutil.iter_modules(globopt_jax.claims.__path__) if name != "registry"]
    modules = [importlib.import_module(f"globopt_jax.claims.{name}") for name in papers]
    claims = tuple(cast(Claim, claim) for module in modules for claim in module.CLAIMS)
    twice = [key for key, count in collections.Counter(claim.key for claim in claims).items() if count > 1]
    if twice:
        raise ValueError(f"claims: Expected: one claim for every key. Received: more than one {', '.join(twice)}.")
    return claims


def verify(
    seed: int, select: str | Sequence[str] | None = None, claims: Sequence[Claim] | None = None
) -> Iterator[Verdict]:
    """Try claims on random instances, and yield each verdict when it is there.

    An instance depends on the seed and the claim's key alone: selecting fewer claims does not change it.

    Args:
        seed: of the random instances.
        select: keys or the beginnings of keys, in whole words and any case: "HV17", "hv17 thm 1" (not
            Thm 10). None: all.
        claims: those to choose from; None: `all_claims()`.

    Raises:
        ValueError: at once, if a selection matches no claim.
    """
    claims = all_claims() if claims is None else claims
    wanted = [select] if isinstance(select, str) else select
    if wanted is not None:
        for words in wanted:
            if not any(_matches(claim, words) for claim in claims):
                known = ", ".join(claim.key for claim in claims) or "none"
                raise ValueError(f"select: Expected: the beginning of a key among: {known}. Received: {words!r}.")
        claims = [claim for claim in claims if any(_matches(claim, words) for words in wanted)]
    return _verdicts(seed, claims)


def _verdicts(seed: int, claims: Sequence[Claim]) -> Iterator[Verdict]:
    for claim in claims:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(claim.key.encode()))
        start = time.perf_counter()
        try:
            found = jax.block_until_ready(claim.check(key))
        except Exception as error:
            error.add_note(f"while checking {claim.key} with seed {seed}")
            raise
        yield Verdict(claim, found, time.perf_counter() - start)


def _matches(claim: Claim, words: str) -> bool:
    start = words.lower().split()
    return claim.key.lower().split()[: len(start)] == start
