"""The description of a data set in words: of the official set, or of what `load` returned."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """A data set in words. `describe` describes an official set, and a loaded set has `.description`."""

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
    split: str = "train"
    """train or test."""
    steps: tuple[str, ...] = ()
    """The steps of preprocessing, in their order; empty for the samples as they are in the files."""
    notes: tuple[str, ...] = ()
    """Sentences on what differs from the official set: missing files, other numbers of images, another split."""

    def __str__(self) -> str:
        """Return the description in a few sentences."""
        m, dx, dy = self.shape
        outputs = "1 output" if dy == 1 else f"{dy} outputs"
        sentences = [f"{self.name}, {self.split}: {m:,} samples with {dx:,} inputs and {outputs}.", self.about]
        if self.steps:
            sentences.append(f"Preprocessing: {'; '.join(self.steps)}.")
        return " ".join((*sentences, *self.notes))
