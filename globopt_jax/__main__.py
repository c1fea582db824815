"""The command `globopt`: a door that says what is missing before anything breaks."""

import importlib.util
import sys

_NEEDED = ("typer", "rich", "matplotlib", "sklearn", "xarray", "pooch")


def main() -> None:
    """Run the command line, or name the extra that it needs and exit with status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"globopt needs {', '.join(missing)}: pip install 'globopt_jax[app]'", file=sys.stderr)
        sys.exit(2)
    from globopt_jax import cli  # late: without the extra this import would fail with a traceback

    cli.main()


if __name__ == "__main__":
    main()
