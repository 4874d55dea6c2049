"""Jobs on the server: what was asked for, its moves, its attempts, its schedule."""
