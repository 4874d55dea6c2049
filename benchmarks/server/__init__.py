"""Load on one server process: lists, job status, followers of a log, and a very large log.

    python -m benchmarks.server [list] [status] [follow] [log] [--seconds 60] [--json FILE]

Each starts a real `onward serve` in a temporary folder and asks it over HTTP from this process.
"""
