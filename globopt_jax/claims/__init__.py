"""The papers' numbered statements, each as a small check that calls the library: one module per paper.

A reader goes from a theorem's number to the function in one step, and `globopt verify` runs them all.

A module here is a paper. It ends in `CLAIMS`, a tuple of `Claim`, and needs no other registration.
"""

from globopt_jax.claims.registry import Claim, Outcome, Verdict, all_claims, outcome, verify

__all__ = ["Claim", "Outcome", "Verdict", "all_claims", "outcome", "verify"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
