"""The client of a server's API: what `onward submit`, `ps`, `logs` and the others call."""
