"""`streamseg` and `python -m streamseg`: light to import, so that Ctrl-C ends a command with 130 from its begin on."""

import os
import sys

# numpy's BLAS keeps threads spinning between large matrix products, of which none here is worth a second core; it reads
# this when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """The entry point."""
    try:
        from streamseg.cli import main as command_line

        command_line()
    except KeyboardInterrupt:  # while it was being imported, or made
        sys.exit(130)


if __name__ == "__main__":
    try:
        main()
    finally:
        # CPython notes a Ctrl-C that came within an exec, such as a dataclass is made by, and ends `-m` by the signal
        # however it was caught; the next exec forgets it (run_eval_code_obj in Python/pythonrun.c).
        exec("")
