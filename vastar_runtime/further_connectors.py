"""The connectors beside `http` and `vastar`: databases, and the plug-ins that are configured."""

from collections.abc import Mapping
from typing import Any

from vastar_runtime.config import ConfigError, Problem, RuntimeConfig
from vastar_runtime.connectors.plugins import UnknownPlugin, find_plugins
from vastar_runtime.connectors.sql import DATABASE_NAMES, Source, SqlConnector, sources_of
from vastar_runtime.credentials.passwords import database_passwords
from vastar_runtime.metrics import DatabaseRow
from vastar_runtime.pipeline import Connector, Surroundings
from vastar_runtime.pipeline.working import Works

__all__ = ["FurtherConnectors", "Prepared"]

Prepared = dict[tuple[str, str], Source]
"""Data sources that are not used yet."""

_OWN: frozenset[str] = frozenset({"http", "vastar", *DATABASE_NAMES})


class FurtherConnectors:
    """All of them, by name.

    Args:
        config: as loaded.
        environ: where secrets may be.

    Attributes:
        names: of them, in order.

    Raises:
        ConfigError: a plug-in is not there, or a password cannot be read.
    """

    def __init__(self, config: RuntimeConfig, environ: Mapping[str, str]) -> None:
        self._environ = environ
        for name in _OWN.intersection(config.plugins.load):
            wrong = f"the name {name} is of a connector of the runtime's own"
            raise ConfigError([Problem("configuration", "plugins.load", wrong, "leave it out")])
        try:
            self._plugins = find_plugins(config.plugins.load, config.plugins.threads)
        except UnknownPlugin as error:
            right = "install it, or leave it out"
            raise ConfigError(
                [Problem("configuration", "plugins.load", str(error), right)]
            ) from None
        self._sources: Prepared = {}
        self._sources = self.prepare(config)
        self._sql: SqlConnector | None = None
        self.names = (*DATABASE_NAMES, *self._plugins)

    def connect(self, surroundings: Surroundings) -> dict[str, Connector]:
        """The connectors, on what all connectors stand."""
        self._sql = SqlConnector(Works(surroundings), self._sources)
        return {**dict.fromkeys(DATABASE_NAMES, self._sql), **self._plugins}

    def prepare(self, config: RuntimeConfig) -> Prepared:
        """The data sources of `config`; those that are as before are the same.

        Raises:
            ConfigError: a password cannot be read.
        """
        return sources_of(config, database_passwords(config, self._environ), self._sources)

    def stats(self) -> list[DatabaseRow]:
        """The connections of each data source now."""
        return [
            DatabaseRow(tenant, name, source.origin, source.idle, source.busy, source.waiting)
            for (tenant, name), source in self._sources.items()
        ]

    def told(self) -> list[dict[str, Any]]:
        """The same for people and programs."""
        return [
            {
                "tenant": row.tenant,
                "source": row.source,
                "origin": row.origin,
                "open": row.idle + row.busy,
                "idle": row.idle,
                "active": row.busy,
                "waiting": row.waiting,
            }
            for row in self.stats()
        ]

    def configure(self, prepared: Prepared) -> None:
        """Use these from now on."""
        assert self._sql is not None, "connected at the start"
        self._sources = prepared
        self._sql.configure(prepared)

    async def run(self) -> None:
        """Do the housekeeping, for ever."""
        assert self._sql is not None, "connected at the start"
        await self._sql.run()
