"""The command `globopt`: a door that says what is missing before anything breaks."""

import importlib.util
import os
import sys

STOPPED = 130  # by Ctrl-C, as shells say it
_NEEDED = ("typer", "rich", "matplotlib", "sklearn", "xarray", "pooch")


def main() -> None:
    """Run the command line, or name the extra that it needs and exit with status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"globopt needs {', '.join(missing)}: pip install 'globopt_jax[app]'", file=sys.stderr)
        sys.exit(2)
    try:
        from globopt_jax import cli  # late: without the extra this import would fail with a traceback

        cli.main()
    except KeyboardInterrupt:
        print("globopt: stopped", file=sys.stderr)
        _leave(STOPPED)
    except SystemExit as end:
        if end.code == STOPPED:
            _leave(STOPPED)
        raise


def _leave(code: int) -> None:
    """Leave at once: an interrupted compilation may live on in JAX's threads, and a slow goodbye would crash on it."""
    for stream in (sys.stdout, sys.stderr):
        _ = stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
