"""What holds for a caller: the places that say something about it, merged key by key.

A later place outranks an earlier one: defaults, tenant, workspace, origin. That order is said once,
in `written_for`; the book that calls ask, `check-config` and the checks all read it there.
"""

from collections.abc import Iterable, Iterator

import attrs
import msgspec

from vastar_runtime.config._credentials import CREDENTIALS, CredentialConfig
from vastar_runtime.config._databases import DATABASES, DatabaseConfig
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._policies import (
    DEFAULTS,
    ORIGINS,
    TENANTS,
    WORKSPACES,
    PoliciesConfig,
    PolicyTables,
)

__all__ = [
    "Written",
    "all_credentials",
    "all_databases",
    "all_written",
    "credential_for",
    "merge",
    "place_of_key",
    "places_above",
    "written_for",
]


@attrs.frozen
class Written:
    """One place that says something.

    Attributes:
        kind: of `PLACES`.
        path: the names of its table in a file.
        tables: what it says.
    """

    kind: str
    path: tuple[str, ...]
    tables: PolicyTables


def written_for(
    config: RuntimeConfig, tenant: str | None, workspace: str | None, origin: str | None
) -> Iterator[Written]:
    """The places beside the defaults that say something for a caller, the strongest last."""
    if tenant is not None and (ours := config.tenants.get(tenant)) is not None:
        if ours.policies:
            yield Written(TENANTS, (TENANTS, tenant), ours.policies)
        if workspace is not None and (tables := ours.workspaces.get(workspace)):
            yield Written(WORKSPACES, (TENANTS, tenant, WORKSPACES, workspace), tables)
    if origin is not None and (tables := config.origins.get(origin)):
        yield Written(ORIGINS, (ORIGINS, origin), tables)


def all_written(config: RuntimeConfig) -> Iterator[Written]:
    """Every place beside the defaults that says something, tenants first."""
    for name, tenant in config.tenants.items():
        yield from written_for(config, name, None, None)
        for workspace in tenant.workspaces:
            for place in written_for(config, name, workspace, None):
                if place.kind == WORKSPACES:
                    yield place
    for origin in config.origins:
        yield from written_for(config, None, None, origin)


def all_credentials(
    config: RuntimeConfig,
) -> Iterator[tuple[tuple[str, ...], CredentialConfig]]:
    """Every credential, with the path of its table in a file."""
    for name, tenant in config.tenants.items():
        for origin, credential in tenant.credentials.items():
            yield (TENANTS, name, CREDENTIALS, origin), credential
        for workspace, credentials in tenant.workspace_credentials.items():
            for origin, credential in credentials.items():
                yield (TENANTS, name, WORKSPACES, workspace, CREDENTIALS, origin), credential


def all_databases(config: RuntimeConfig) -> Iterator[tuple[tuple[str, ...], DatabaseConfig]]:
    """Every data source, with the path of its table in a file."""
    for name, tenant in config.tenants.items():
        for source, database in tenant.databases.items():
            yield (TENANTS, name, DATABASES, source), database


def credential_for(
    config: RuntimeConfig, tenant: str, workspace: str | None, origin: str
) -> tuple[tuple[str, ...], CredentialConfig] | None:
    """What is added to calls to an origin, and the path of its table: a workspace's own first."""
    written = dict(all_credentials(config))
    for path in (
        (TENANTS, tenant, WORKSPACES, workspace or "", CREDENTIALS, origin),
        (TENANTS, tenant, CREDENTIALS, origin),
    ):
        if path in written:
            return path, written[path]
    return None


def places_above(config: RuntimeConfig, place: Written) -> Iterator[Written]:
    """The places beside the defaults that a place inherits from: a workspace from its tenant."""
    if place.kind == WORKSPACES:
        yield from written_for(config, place.path[1], None, None)


def merge(defaults: PoliciesConfig, places: Iterable[PolicyTables]) -> PoliciesConfig:
    """`defaults` with what the places say; the last one that writes a key decides it."""
    changed: dict[str, msgspec.Struct] = {}
    for tables in places:
        for policy, values in tables.items():
            before = changed.get(policy) or getattr(defaults, policy)
            changed[policy] = msgspec.structs.replace(
                before, **{key: _as_loaded(value) for key, value in values.items()}
            )
    return msgspec.structs.replace(defaults, **changed) if changed else defaults


def _as_loaded(value: object) -> object:
    """What was sent to a worker has lists, where what was loaded has tuples."""
    return tuple(value) if isinstance(value, list) else value


def place_of_key(places: Iterable[Written], policy: str, key: str) -> tuple[str, ...]:
    """The path of the table that decides a key for a caller; the defaults where no place does."""
    path: tuple[str, ...] = (DEFAULTS,)
    for place in places:
        if key in place.tables.get(policy, ()):
            path = place.path
    return (*path, policy)
