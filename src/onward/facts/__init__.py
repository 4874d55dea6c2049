"""Documents about outputs: what `--json` prints, and what the server's API and console show."""
