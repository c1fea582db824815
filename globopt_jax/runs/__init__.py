"""Run folders: where a long computation keeps its configuration, its checkpoints and its result.

A folder belongs to one configuration. The same configuration resumes there, or reads the finished result;
another one is refused. Every file appears whole or not at all, so that a process killed at any moment leaves
a folder that reads: what it loses is the step in progress.

A checkpoint is one small .npz, not a sharded array tree, so that NumPy alone reads it, here and anywhere.
The locks need POSIX.
"""

from globopt_jax.npz import read_arrays
from globopt_jax.runs.files import (
    canonical_json,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
)
from globopt_jax.runs.folder import Checkpoint, FolderInUse, RunFolder, default_folder
from globopt_jax.runs.origin import hash_arrays, provenance

__all__ = [
    "Checkpoint",
    "FolderInUse",
    "RunFolder",
    "canonical_json",
    "default_folder",
    "hash_arrays",
    "provenance",
    "read_arrays",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_text",
]
