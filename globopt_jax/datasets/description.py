"""The description of a data set, which is available without loading the data."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """A data set in words. The words are kept apart from the arrays, so that a `Dataset` can pass through `jit`."""

    name: str
    """The name for `load`."""
    about: str
    """One sentence on the samples and their scaling."""
    shape: tuple[int, int, int]
    """m, dx and dy."""
    source: str
    """The address of the files, or the package that contains the data."""
    licence: str
    """The licence and the people to credit."""
