"""`python -m streamseg` is the command line."""

from streamseg.cli import main

if __name__ == "__main__":
    main()
