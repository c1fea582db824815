"""``python -m globopt_jax.rigorous RUN_FOLDER``: check a stored certificate with NumPy alone."""

import sys

from globopt_jax.rigorous.folder import check_folder

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m globopt_jax.rigorous RUN_FOLDER")
    try:
        checked = check_folder(sys.argv[1])
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(checked.reason)
    sys.exit(0 if checked.holds else 1)
