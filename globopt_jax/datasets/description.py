"""What a reader should know of a data set before it is loaded."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """A data set in words: apart from its arrays, so that those pass through `jit` and `vmap`."""

    name: str
    about: str
    """One sentence: what a sample is, and how it was scaled."""
    shape: tuple[int, int, int]
    """m, dx, dy."""
    source: str
    """Where it comes from: an address, or the package that brings it."""
    licence: str
