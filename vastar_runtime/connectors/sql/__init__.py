"""Databases: connectors `sqlite` and `postgres`, and their aliases `db` and `sql`."""

from vastar_runtime.connectors.sql.connector import DATABASE_NAMES, SqlConnector
from vastar_runtime.connectors.sql.sources import LookUp, Source, server_of, sources_of

__all__ = ["DATABASE_NAMES", "LookUp", "Source", "SqlConnector", "server_of", "sources_of"]
