"""What a command says on stderr, and what it asks of the machine before it begins."""

import os
import sys
from pathlib import Path

__all__ = ["check_device", "check_memory", "memory", "say"]


def say(text: str) -> None:
    """A remark or an error of the command, on stderr, in one line."""
    print(f"globopt: {' '.join(text.split())}", file=sys.stderr)


def check_device() -> None:
    """Raise ValueError, with what JAX says, where it has no device to compute on."""
    import jax  # late: the help needs none of it

    try:
        _ = jax.devices()
    except Exception as error:  # a RuntimeError, or an AssertionError without a word
        name, said = os.environ.get("JAX_PLATFORMS", ""), f"{type(error).__name__}: {error}".rstrip(": .")
        if not str(error):
            said = f"nothing but {said}"
        raise ValueError(
            f"JAX_PLATFORMS: Expected: a platform that JAX finds on this machine. Received: {name!r}; JAX says {said}. "
            "Unset it to let JAX choose, or install the JAX for that platform."
        ) from error


def memory() -> int | None:
    """The bytes of memory of this machine, or of the container that this is; None where nothing says."""
    found = []
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(limit).read_text()))
        except (OSError, ValueError):  # "max" is none
            continue
    return min((n for n in found if n > 0), default=None)


def check_memory(option: str, given: object, need: int) -> None:
    """Raise ValueError, before anything is allocated, if an option needs more memory than the machine has.

    Args:
        option: the option's name.
        given: its value, for the message.
        need: the bytes that it takes at the least.
    """
    there = memory() or 2**63
    if need > there:
        raise ValueError(
            f"{option}: Expected: a size that fits into {_size(there)} of memory. Received: {given}, which takes "
            f"{_size(need)} at the least."
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
