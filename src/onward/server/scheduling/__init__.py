"""The scheduler: the one thread that starts attempts, follows them, and moves jobs on."""

from onward.server.scheduling.supervisor import Supervisor

__all__ = ["Supervisor"]
