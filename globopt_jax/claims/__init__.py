"""The papers' numbered statements, each as a small check that calls the library.

The checks lead from the number of a theorem to the functions that implement it. `globopt verify` runs all of them.

Each paper has a module here, which defines `STATEMENTS`, the keys of its statements, and `CLAIMS`, a tuple of `Claim`.
A new module needs no other registration.

    >>> [str(verdict.outcome.holds) for verdict in verify(seed=0, select="HV17 Def degree")]
    ['True']
"""

from globopt_jax.claims.registry import Claim, Outcome, Verdict, all_claims, chosen, outcome, statements, verify

__all__ = ["Claim", "Outcome", "Verdict", "all_claims", "chosen", "outcome", "statements", "verify"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
