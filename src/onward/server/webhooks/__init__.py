"""Telling others of jobs: signed messages to addresses that an administrator registered.

A message is a row, written in the transaction of the move that it tells of, so that no move goes
untold and nothing is told that did not happen. Sending comes afterwards (`courier.py`).
"""
