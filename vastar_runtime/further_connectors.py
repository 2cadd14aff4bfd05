"""The connectors beside `http` and `vastar`: databases, and the plug-ins that are configured."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from vastar_runtime.config import (
    ConfigError,
    Problem,
    RuntimeConfig,
    all_databases,
    database_address,
    dotted,
)
from vastar_runtime.connectors.plugins import UnknownPlugin, find_plugins
from vastar_runtime.connectors.sql import (
    DATABASE_NAMES,
    LookUp,
    Source,
    SqlConnector,
    server_of,
    sources_of,
)
from vastar_runtime.credentials.passwords import database_passwords
from vastar_runtime.metrics import DatabaseRow
from vastar_runtime.pipeline import Connector, Surroundings
from vastar_runtime.pipeline.policies import PolicyBook
from vastar_runtime.pipeline.working import Works
from vastar_runtime.policy.egress import rules_of_named
from vastar_runtime.policy.modes import Mode

__all__ = ["FurtherConnectors", "Prepared", "unusable_further"]

Prepared = dict[tuple[str, str], Source]
"""Data sources that are not used yet."""

_POSTGRES_DRIVER: Final = "psycopg"
_INSTALL_POSTGRES: Final = 'pip install "vastar-connector-runtime[postgres]"'

_OWN: frozenset[str] = frozenset({"http", "vastar", *DATABASE_NAMES})


def unusable_further(config: RuntimeConfig, book: PolicyBook) -> list[Problem]:
    """What is wrong with plug-ins and data sources, that the configuration alone does not show."""
    return [
        *_problems_of_plugins(config),
        *_undrivable_databases(config),
        *_forbidden_databases(config, book),
    ]


def _problems_of_plugins(config: RuntimeConfig) -> list[Problem]:
    key, right = "plugins.load", "leave it out"
    for name in config.plugins.load:
        if name in _OWN:
            wrong = f"the name {name} is of a connector of the runtime's own"
            return [Problem("configuration", key, wrong, right)]
    try:
        find_plugins(config.plugins.load, config.plugins.threads)
    except UnknownPlugin as error:
        return [Problem("configuration", key, str(error), f"install it, or {right}")]
    return []


def _undrivable_databases(config: RuntimeConfig) -> list[Problem]:
    """The first data source whose driver is not installed."""
    for path, database in all_databases(config):
        if database_address(database.url or "").driver != "postgres":
            continue
        try:
            import_module(_POSTGRES_DRIVER)
        except ImportError as error:
            reason = str(error).partition("\n")[0]
            wrong = f"PostgreSQL is spoken by psycopg, which cannot be used ({reason})"
            return [Problem("configuration", dotted((*path, "url")), wrong, _INSTALL_POSTGRES)]
        break
    return []


def _forbidden_databases(config: RuntimeConfig, book: PolicyBook) -> list[Problem]:
    """Data sources whose very names the egress guard would refuse, call by call."""
    problems = []
    for path, database in all_databases(config):
        address = database_address(database.url or "")
        server = server_of(address)
        if server is None:
            continue
        rules = rules_of_named(book.of(path[1], None, address.origin).egress)
        refusal = rules.refusal_of_name(server)
        if refusal is not None and (refusal.always or rules.settings.mode is Mode.ENFORCE):
            right = "name another"
            if not refusal.always:
                right += f", or leave it out of {refusal.rule} in the tenant's [egress]"
            wrong = f"the egress guard refuses {address.host}: {refusal.reason}"
            problems.append(Problem("configuration", dotted((*path, "url")), wrong, right))
    return problems


class FurtherConnectors:
    """All of them, by name.

    Args:
        config: as loaded.
        environ: where secrets may be.
        look_up: of the servers of data sources.

    Attributes:
        names: of them, in order.

    Raises:
        ConfigError: a plug-in is not there, or a password cannot be read.
    """

    def __init__(
        self, config: RuntimeConfig, environ: Mapping[str, str], look_up: LookUp | None = None
    ) -> None:
        self._environ = environ
        self._look_up = look_up
        if problems := _problems_of_plugins(config):
            raise ConfigError(problems)
        self._plugins = find_plugins(config.plugins.load, config.plugins.threads)
        self._sources: Prepared = {}
        self._sources = self.prepare(config)
        self._sql: SqlConnector | None = None
        self.names = (*DATABASE_NAMES, *self._plugins)

    def connect(self, surroundings: Surroundings) -> dict[str, Connector]:
        """The connectors, on what all connectors stand."""
        self._sql = SqlConnector(Works(surroundings), self._sources)
        return {**dict.fromkeys(DATABASE_NAMES, self._sql), **self._plugins}

    def prepare(self, config: RuntimeConfig, *, anew: bool = False) -> Prepared:
        """The data sources of `config`; those that are as before are the same.

        Args:
            config: checked.
            anew: none is the same: what is open may lead where nothing may any more.

        Raises:
            ConfigError: a password cannot be read.
        """
        passwords = database_passwords(config, self._environ)
        return sources_of(config, passwords, None if anew else self._sources, self._look_up)

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
