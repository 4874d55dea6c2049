"""A client of a server: which one, its requests, its streams. Needs `onward[client]`."""

from onward.client.connection import Client, JobEvents
from onward.client.errors import ServerRefused, ServerUnreachable
from onward.client.login import Login, find_login, save_login

__all__ = [
    "Client", "JobEvents", "Login", "ServerRefused", "ServerUnreachable", "find_login",
    "save_login",
]  # fmt: skip
