"""Keep training, never start over. See https://github.com/onward-train/onward or docs/."""
