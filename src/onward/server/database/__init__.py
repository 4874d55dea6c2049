"""The index: jobs, attempts, and what outputs hold, so that lists are quick.

Never the truth about a model: that is in its output's log.
"""

from onward.server.database.opening import Database, Overtaken, open_database
from onward.server.database.tables import Base

__all__ = ["Base", "Database", "Overtaken", "open_database"]
