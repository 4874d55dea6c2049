"""Who may what: tokens, sessions, limits, checks of requests, secrets."""
