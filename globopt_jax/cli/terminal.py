"""Messages of commands on stderr, and checks of the machine before a command begins."""

import os
import sys
from pathlib import Path

__all__ = ["check_device", "check_memory", "memory", "say"]


def say(text: str) -> None:
    """Print a remark or an error on stderr, in one line."""
    print(f"globopt: {' '.join(text.split())}", file=sys.stderr)


def check_device() -> None:
    """Raise ValueError, with JAX's reason, if JAX finds no device to compute on."""
    import jax  # imported here, since the help does not need it

    try:
        _ = jax.devices()
    except Exception as error:  # a RuntimeError, or an AssertionError without a message
        name, said = os.environ.get("JAX_PLATFORMS", ""), f"{type(error).__name__}: {error}".rstrip(": .")
        if not str(error):
            said = f"nothing but {said}"
        raise ValueError(
            f"JAX_PLATFORMS: Expected: a platform that JAX finds on this machine. Received: {name!r}; JAX says {said}. "
            "Unset the variable to let JAX choose, or install JAX for that platform."
        ) from error


def memory() -> int | None:
    """Return the bytes of memory of this machine or container; None if the system does not tell."""
    found = []
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such file, or "max", which means no limit
            continue
    return min((n for n in found if n > 0), default=None)


def check_memory(option: str, given: object, need: int) -> None:
    """Raise ValueError, before anything is allocated, if an option needs more memory than the machine has.

    Args:
        option: the name of the option.
        given: the value of the option, for the message.
        need: the smallest number of bytes that the value needs.
    """
    there = memory() or 2**63
    if need > there:
        raise ValueError(
            f"{option}: Expected: a size that fits into {_size(there)} of memory. Received: {given}, which takes at "
            f"least {_size(need)}."
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
