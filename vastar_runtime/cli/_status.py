"""`status`: what a runtime says of itself."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from vastar_runtime.cli._target import holder_at, how_to_start, is_leaving_at, target_of
from vastar_runtime.cli.control import (
    ControlClient,
    ControlError,
    NotRunningError,
    RefusedError,
)
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import Address

__all__ = ["describe", "status"]

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_COMMANDS: Final = "(the commands' own)"
_POOL_COLUMNS: Final = ("tenant", "workspace", "origin", "idle", "active", "waiting")
_DATABASE_COLUMNS: Final = (*("tenant", "source", "origin", "open", "idle", "active", "waiting"),)
_WORKER_COLUMNS: Final = (
    *("worker", "pid", "state", "up", "restarts", "connections", "in_flight", "calls_accepted"),
)
_POLICY_COLUMNS: Final = ("policy", "mode", "passed", "applied", "observed")
_BREAKER_COLUMNS: Final = ("scope", "tenant", "origin", "state")


def status(options: argparse.Namespace) -> ExitCode:
    """Print the state of the runtime; 0 when it runs, 3 when it does not.

    Raises:
        ControlError: it is there and does not answer, or not what was asked for.
    """
    address = target_of(options)
    details = {name: True for name in ("metrics", "verbose") if getattr(options, name)}
    if options.tenants:
        details["verbose"] = True
    try:
        found = _ask(address, details)
    except NotRunningError as error:
        pid = holder_at(address)
        if options.json:
            print(msgspec.json.encode({"running": False, "pid": pid}).decode())
        elif pid is not None:
            doing = "finishing calls before it stops" if is_leaving_at(address) else "starting"
            print(f"{error}, but pid {pid} holds its lock: it is {doing}")
        else:
            print(f"{error}; {how_to_start(address)}")
        return ExitCode.NOT_RUNNING
    if options.json:
        print(msgspec.json.encode({"running": True, **found}).decode())
    elif options.metrics:
        print(_metrics_of(found, address), end="")
    elif options.tenants:
        print("\n".join(_tenants(found)))
    else:
        print("\n".join(describe(found, str(address), verbose=options.verbose)))
    return ExitCode.OK


def _ask(address: Address, details: Mapping[str, object]) -> dict[str, Any]:
    """The runtime's own account, or what a health check tells where it keeps that to itself."""
    with ControlClient(address) as client:
        try:
            return client.call("status", details)
        except RefusedError as error:
            reason = str(error)
    with ControlClient(address) as client:
        health, peer = client.health(), client.peer
    return {
        "pid": peer.pid if peer else None,
        "healthy": health.healthy,
        "message": health.message,
        "in_flight": health.active_requests,
        "available_credits": health.available_credits,
        "limited": reason,
    }


def _metrics_of(found: Mapping[str, Any], address: Address) -> str:
    """The text of the metrics.

    Raises:
        ControlError: there is none; a runtime that keeps its state to itself says why.
    """
    text = found.get("metrics")
    if not isinstance(text, str):
        raise ControlError(found.get("limited") or f"{address}: this runtime tells no metrics")
    return text


def describe(found: Mapping[str, Any], address: str, *, verbose: bool = False) -> Iterator[str]:
    """The lines that `status` prints; with `verbose` also how calls are treated."""
    head = ["running" if not found.get("draining") else "finishing calls before it stops"]
    if found.get("pid") is not None:
        head.append(f"pid {found['pid']}")
    if "version" in found:
        head.append(f"version {found['version']}")
    if "uptime_s" in found:
        head.append(f"up {_duration(found['uptime_s'])}")
    yield ", ".join(head)
    yield f"listening on {', '.join(map(str, found.get('listeners') or [address]))}"
    counts = [
        f"{found[key]} {words}"
        for key, words in (
            ("in_flight", "calls in flight"),
            ("connections", "connections"),
            ("available_credits", "credits left"),
        )
        if key in found
    ]
    yield ", ".join(counts)
    if found.get("limited"):
        yield f"(only what a health check tells: {found['limited']})"
    if found.get("alone"):
        yield f"({found['alone']})"
    if found.get("workers"):
        yield "workers:"
        yield from _rows([_worker(row) for row in found["workers"]], _WORKER_COLUMNS)
    if found.get("pools"):
        yield "connections to upstreams:"
        yield from _rows(found["pools"], _POOL_COLUMNS)
    if found.get("databases"):
        yield "connections to databases:"
        yield from _rows(found["databases"], _DATABASE_COLUMNS)
    if verbose:
        yield from _details(found)


def _details(found: Mapping[str, Any]) -> Iterator[str]:
    """What a call goes through and what became of those before; an older runtime tells less."""
    if found.get("pipeline"):
        yield f"a call goes through: {' > '.join(map(str, found['pipeline']))}"
    if found.get("policies"):
        yield "verdicts of the policies:"
        yield from _rows(found["policies"], _POLICY_COLUMNS)
    if "breakers" in found:
        troubled = [row for row in found["breakers"] if row.get("state") != "closed"]
        yield f"circuits that are not closed:{'' if troubled else ' none'}"
        yield from _rows(troubled, _BREAKER_COLUMNS)
    if found.get("limits"):
        yield "limits:"
        yield from _rows(found["limits"])


def _tenants(found: Mapping[str, Any]) -> Iterator[str]:
    """What tenants and workspaces have used since the start, and what is left of their limits."""
    yield f"used since the start:{'' if found.get('tenants') else ' nothing'}"
    # The commands name no tenant: what `status` and `reload` ask is under none.
    yield from _rows(
        [{**row, "tenant": row.get("tenant") or _COMMANDS} for row in found.get("tenants", ())]
    )
    limits = [row for row in found.get("limits", ()) if row.get("scope") != "origin"]
    if limits:
        yield "left of limits:"
        yield from _rows(limits)


def _worker(row: Mapping[str, Any]) -> dict[str, Any]:
    up_s = row.get("uptime_s")
    return {**row, "up": None if up_s is None else _duration(up_s)}


def _rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Iterator[str]:
    """A table under its column names, by default all that a row has; nothing without a row."""
    if not rows:
        return
    names = tuple(columns or dict.fromkeys(name for row in rows for name in row))
    yield from _table([names, *(tuple(_cell(row.get(name)) for name in names) for row in rows)])


def _cell(value: object) -> str:
    """A value for people. Callers choose names: none of theirs moves a cursor or begins a line."""
    if value is None or value == "":
        return "-"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
