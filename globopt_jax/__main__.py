"""Start the command `globopt`: name missing packages first, and report every error in one line."""

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

STOPPED = 130  # the exit code of shells for a command that Ctrl-C stopped
CRASHED = 70  # EX_SOFTWARE in sysexits.h
_NEEDED = ("typer", "rich", "matplotlib", "sklearn", "xarray", "pooch", "filelock")


def main() -> None:
    """Run the command line; if packages are missing, name them and the extra that has them, and exit with status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"globopt needs {', '.join(missing)}: pip install 'globopt_jax[app]'", file=sys.stderr)
        sys.exit(2)
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    _ = os.environ.pop("MPLBACKEND", None)  # pictures are written to files and never shown
    _keep_compiled()
    code = _run()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            _ = stream.flush()  # here an error, such as a full disk, can still be reported
    except OSError as error:
        _leave(code or failed(error))
    if code == STOPPED:
        # JAX's threads may still run an interrupted compilation, on which an ordinary exit would crash.
        _leave(code)
    sys.exit(code)


def _keep_compiled() -> None:
    """Make JAX keep compiled programs in the user's cache folder, unless the environment names another folder.

    Each kind of processor gets a folder for itself, because a home folder can be shared by several machines, and a
    program that was compiled for one processor may not run on another.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import pooch  # for the location of the cache folder; imported here, since only the command needs it

    flags = Path("/proc/cpuinfo")
    kind = next((line for line in flags.read_text().splitlines() if "flags" in line), "") if flags.exists() else ""
    processor = f"{platform.machine()}-{zlib.crc32(f'{platform.processor()} {kind}'.encode()):08x}"
    folder = os.path.join(pooch.os_cache("globopt_jax"), "compiled", processor)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    _ = os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**29))
    _ = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _run() -> int:
    """Run the command line and return the exit code."""
    try:
        from globopt_jax import cli  # imported here, since it fails where packages are missing

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
    """Report an error in one line on stderr and return the exit code."""
    if os.environ.get("GLOBOPT_TRACEBACK"):
        traceback.print_exception(error)
    words = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    if isinstance(error, OSError):  # an error of a disk or a terminal is no bug
        print(f"globopt: {words}", file=sys.stderr)
        return 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in words:
        print(f"globopt: this needs more memory than the machine has ({words})", file=sys.stderr)
        return 2
    last = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"globopt: a bug: {words} ({os.path.basename(last.filename)}:{last.lineno}). Please report it to the "
        "maintainers of globopt_jax, with this command and its output under GLOBOPT_TRACEBACK=1",
        file=sys.stderr,
    )
    return CRASHED


class _Pipe(io.FileIO):
    """Standard output or error that ignores a closed pipe, so that the command goes on after `head` or `grep -q`."""

    def write(self, data: Any, /) -> int | None:
        """Write the data, or drop them if nobody reads the pipe any more."""
        try:
            return super().write(data)
        except OSError as error:
            # Windows raises EINVAL (22) where other systems raise EPIPE.
            if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == 22):
                return len(data)
            raise


def _patient(stream: Any) -> Any:
    """Return the stream in a form that ignores a closed pipe and escapes letters that its encoding lacks."""
    if not isinstance(stream, io.TextIOWrapper):  # the stream is closed, or was replaced by another object
        return stream
    stream.reconfigure(errors="backslashreplace")
    if stream.isatty():
        return stream
    raw = _Pipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),  # `python -u` asks for no buffer
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _leave(code: int) -> None:
    """Flush the streams, as far as possible, and end the process at once."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            _ = stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
