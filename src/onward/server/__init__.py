"""The server: jobs for a team. REST API, database, scheduler, console; `onward serve` starts it."""
