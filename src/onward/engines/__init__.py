"""Where attempts run. An engine starts agents, finds them again, and tells how they are."""

from onward.engines.base import Engine, Launch, Sighting

__all__ = ["Engine", "Launch", "Sighting"]
