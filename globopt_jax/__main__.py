"""The command `globopt`: a door that says what is missing before anything breaks, and what broke in one line."""

import contextlib
import importlib.util
import io
import os
import platform
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any

STOPPED = 130  # by Ctrl-C, as shells say it
CRASHED = 70  # EX_SOFTWARE of sysexits.h
_NEEDED = ("typer", "rich", "matplotlib", "sklearn", "xarray", "pooch", "filelock")


def main() -> None:
    """Run the command line, or name the extra that it needs and exit with status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"globopt needs {', '.join(missing)}: pip install 'globopt_jax[app]'", file=sys.stderr)
        sys.exit(2)
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    _ = os.environ.pop("MPLBACKEND", None)  # pictures are written and never shown
    _keep_compiled()
    code = _run()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            _ = stream.flush()  # here, where a full disk can still be told
    except OSError as error:
        _leave(code or failed(error))
    if code == STOPPED:
        _leave(code)  # an interrupted compilation may live on in JAX's threads, and a slow goodbye would crash on it
    sys.exit(code)


def _keep_compiled() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless the environment says where, or not to.

    Programs that were compiled for one processor may not run on another, which a home folder on a network can meet:
    each kind of processor has a folder of its own.
    """
    import pooch  # it knows where each system keeps caches; late: only the command needs it

    flags = Path("/proc/cpuinfo")
    kind = next((line for line in flags.read_text().splitlines() if "flags" in line), "") if flags.exists() else ""
    processor = f"{platform.machine()}-{zlib.crc32(f'{platform.processor()} {kind}'.encode()):08x}"
    folder = os.path.join(pooch.os_cache("globopt_jax"), "compiled", processor)
    settings = {"DIR": folder, "MAX_SIZE": str(2**29)}
    for name, value in settings.items():
        _ = os.environ.setdefault(f"JAX_COMPILATION_CACHE_{name}", value)
    _ = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _run() -> int:
    """Do what the command line asks for; the exit code."""
    try:
        from globopt_jax import cli  # late: without the extra this import would fail with a traceback

        cli.main()
    except KeyboardInterrupt:
        print("globopt: stopped", file=sys.stderr)
        return STOPPED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        return failed(error)
    return 0


def failed(error: Exception) -> int:
    """Say in one line what went wrong; the exit code."""
    if os.environ.get("GLOBOPT_TRACEBACK"):
        traceback.print_exception(error)
    words = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    if isinstance(error, OSError):  # of a disk or a terminal, and nothing to report
        print(f"globopt: {words}", file=sys.stderr)
        return 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in words:
        print(f"globopt: this takes more memory than there is ({words})", file=sys.stderr)
        return 2
    last = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"globopt: a bug: {words} ({os.path.basename(last.filename)}:{last.lineno}). Please report it to the "
        "maintainers of globopt_jax, with this command and what it prints under GLOBOPT_TRACEBACK=1",
        file=sys.stderr,
    )
    return CRASHED


class _Pipe(io.FileIO):
    """Standard output or error, for readers that may leave, as `head` and `grep -q` do: the command works on."""

    def write(self, data: Any, /) -> int | None:
        """Write, or forget, the data."""
        try:
            return super().write(data)
        except OSError as error:
            # Windows says EINVAL where others say EPIPE.
            if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == 22):
                return len(data)
            raise


def _patient(stream: Any) -> Any:
    """The stream, for readers that leave and for terminals that lack a letter."""
    if not isinstance(stream, io.TextIOWrapper):  # closed, or somebody's own
        return stream
    stream.reconfigure(errors="backslashreplace")
    if stream.isatty():
        return stream
    raw = _Pipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),  # python -u buffers nothing
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _leave(code: int) -> None:
    """Leave at once, with what can be written."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            _ = stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
