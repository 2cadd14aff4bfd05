"""The keys of data sources, `[tenants.acme.databases.orders]`, and of plug-ins.

Callers name a source, never where it is: so what may be reached is here, and nowhere else. A
password is a reference to the place that holds it (`_references`), never in the URL.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec
from msgspec import Meta

from vastar_runtime.config._names import BadName, canonical_origin
from vastar_runtime.config._references import BadReference, split_references
from vastar_runtime.config._toml import dotted

__all__ = [
    "DATABASES",
    "POSTGRES",
    "SQLITE",
    "DatabaseAddress",
    "DatabaseConfig",
    "Databases",
    "PluginsConfig",
    "canonical_server",
    "database_address",
    "faults_of_database",
]

DATABASES: Final = "databases"
SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"

_HOUR_S: Final = 3600
_MIB: Final = 1024 * 1024
_MAX_ROWS: Final = 10_000_000
_POSTGRES_PORT: Final = 5432
_SCHEMES: Final = {"sqlite": SQLITE, "postgres": POSTGRES, "postgresql": POSTGRES}
_OPTIONS: Final = frozenset({"sslmode", "sslrootcert", "application_name"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_SERVER: Final = 'write "postgres://HOST:PORT" or "sqlite:///PATH"'

_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
_Path: TypeAlias = tuple[str, ...]
_Fault: TypeAlias = tuple[str, str, str]


class PluginsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Connectors that installed packages offer (entry point group `vastar.connectors`)."""

    load: Annotated[
        tuple[_Text, ...], Meta(description="names of those that are taken up; none by itself")
    ] = ()
    threads: Annotated[
        int, Meta(ge=1, le=256, description="calls that each of them may run at once")
    ] = 16


class DatabaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data source of a tenant."""

    url: Annotated[
        _Text | None,
        Meta(description="sqlite:///PATH or postgresql://[USER@]HOST[:PORT]/NAME, no password"),
    ] = None
    user: Annotated[_Text | None, Meta(description="name to log in with, if not in the URL")] = None
    password: Annotated[
        _Text | None,
        Meta(description="a reference: ${file:PATH} or ${env:NAME}", extra={"reference": True}),
    ] = None
    read_only: Annotated[
        bool, Meta(description="the database refuses every change, whatever the SQL says")
    ] = False
    max_connections: Annotated[
        int, Meta(ge=1, le=256, description="connections of this process, and statements at once")
    ] = 8
    idle_timeout_s: Annotated[
        float, Meta(ge=0.001, le=_HOUR_S, description="an idle connection is closed after this")
    ] = 60.0
    connect_timeout_s: Annotated[
        float, Meta(ge=1, le=_HOUR_S, description="time for connecting and logging in")
    ] = 5.0
    statement_timeout_s: Annotated[
        float, Meta(ge=0.001, le=24 * _HOUR_S, description="time of one call's statements")
    ] = 30.0
    busy_timeout_s: Annotated[
        float, Meta(ge=0, le=_HOUR_S, description="SQLite: wait for another program's lock")
    ] = 5.0
    max_rows: Annotated[
        int, Meta(ge=1, le=_MAX_ROWS, description="rows of an answer that is no stream")
    ] = 100_000
    max_result_bytes: Annotated[
        int, Meta(ge=1024, le=1024 * _MIB, description="about how long it may be in memory")
    ] = 32 * _MIB
    prepared_statements: Annotated[
        bool, Meta(description="PostgreSQL: prepare what comes often; false for old poolers")
    ] = True
    reset: Annotated[
        Literal["auto", "always"],
        Meta(description="PostgreSQL: undo what a call left in its session, seen or in any case"),
    ] = "auto"

    def __repr__(self) -> str:
        """Without values: not all of them were checked."""
        return "DatabaseConfig(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return []


Databases: TypeAlias = dict[str, DatabaseConfig]
"""By name."""


class DatabaseAddress(NamedTuple):
    """What a URL says.

    Attributes:
        driver: `SQLITE` or `POSTGRES`.
        name: of the database; of SQLite the path of its file.
        user: empty where the URL names none.
        options: pairs of the query.
    """

    driver: str
    name: str
    host: str = ""
    port: int = 0
    user: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> str:
        """The server, as policies, logs and refusals name it; without secrets."""
        if self.driver == SQLITE:
            return f"sqlite://{quote(self.name)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgres://{host}:{self.port}"


def canonical_server(name: str) -> str:
    """The one text of what policies speak of: an origin of HTTP, or the server of a data source.

    A PostgreSQL server is `postgres://host:port`, its port always said, as one server has many
    databases; a file of SQLite is `sqlite:///PATH`.

    Raises:
        BadName: it is neither, or says more.
    """
    scheme, colon, rest = name.partition("://")
    driver = _SCHEMES.get(scheme.lower())
    if driver is None or not colon:
        return canonical_origin(name)
    if "@" in rest and driver == POSTGRES:
        raise BadName("it has a user part", f"leave that out: {_SERVER}")
    is_whole = driver == SQLITE or "/" in rest
    try:
        address = database_address(f"{driver}://{rest}" + ("" if is_whole else "/any"))
    except ValueError as error:
        raise BadName(str(error), _SERVER) from None
    if is_whole and driver == POSTGRES:
        raise BadName("it has more than scheme, host and port", f'write "{address.origin}"')
    return address.origin


def database_address(url: str) -> DatabaseAddress:
    """The address in `url`.

    Raises:
        ValueError: it is none; the words quote nothing of it.
    """
    if _CONTROL.search(unquote(url)):
        raise ValueError("it has characters that belong in no name")
    try:
        parts = urlsplit(url)
        hostname, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("it is no URL") from None
    host = _host(hostname)
    driver = _SCHEMES.get(parts.scheme)
    if driver is None:
        raise ValueError("its scheme is none of sqlite, postgres, postgresql")
    if parts.password is not None:
        raise ValueError("it holds a password, which would be shown")
    if parts.fragment:
        raise ValueError("it has a fragment")
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    if driver == SQLITE:
        if parts.netloc or not parts.path.startswith("/") or options or parts.path == "/":
            raise ValueError("it is no sqlite:///PATH with an absolute path")
        return DatabaseAddress(SQLITE, unquote(parts.path))
    unknown = [name for name, _ in options if name not in _OPTIONS]
    if unknown:
        raise ValueError("it has an option that is none of " + ", ".join(sorted(_OPTIONS)))
    name = unquote(parts.path[1:])
    if not host or not name or "/" in name or port == 0:
        raise ValueError("it has no host, or no name of one database")
    user = unquote(parts.username or "")
    return DatabaseAddress(POSTGRES, name, host, port or _POSTGRES_PORT, user, options)


def _host(name: str) -> str:
    """One spelling of a host: lower case, and an address as programs write it."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _HOST.fullmatch(name):  # a list of hosts, which the client library would take, too
        raise ValueError("its host is no name in ASCII (punycode), and no address")
    return name.lower()


def faults_of_database(path: _Path, database: DatabaseConfig) -> Iterator[_Fault]:
    """Key, what is wrong, and what would be right. Nothing is quoted that may be a secret."""
    if not _NAME.fullmatch(path[-1]):
        yield (
            dotted(path),
            "that is no name of a data source",
            "give up to 64 letters, digits, and . _ - behind the first",
        )
    right = "write sqlite:///PATH, or postgresql://USER@HOST/NAME and password beside it"
    if database.url is None:
        yield dotted((*path, "url")), "it is missing", right
    else:
        try:
            address = database_address(database.url)
        except ValueError as error:
            yield dotted((*path, "url")), str(error), right
        else:
            if database.user and address.user:
                yield dotted((*path, "user")), "the URL names a user too", "name one of the two"
    if database.password is not None:
        try:
            split_references(database.password)
        except BadReference as error:
            yield dotted((*path, "password")), error.wrong, error.right
