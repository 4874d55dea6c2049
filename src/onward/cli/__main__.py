"""`python -m onward.cli` is `onward`."""

from onward.cli.commands import main

if __name__ == "__main__":
    main(prog_name="onward")
