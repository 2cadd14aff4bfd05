"""Hold the one direction of imports: a module imports from lower levels or from its own room.

One table, `ROOMS`, says where each module lives and why there. Imports are read from the syntax
tree, so those inside functions and under TYPE_CHECKING count too: a dependency is a dependency
whenever it is loaded. A module that no room names is an error, so that nothing slips past the
table. Standard library only, so that it runs before anything is installed.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOMS", "Room", "faults_in", "faults_of_tree", "main", "room_of"]

ROOT = Path(__file__).resolve().parent.parent
OURS = ("vastar_client", "vastar_runtime")
OUTSIDE = ("tests", "tools", "benchmarks")
GENERATED = "vastar_client.wire._generated"
CODEC = ("vastar_client.wire.codec", "vastar_client.wire._")


@dataclass(frozen=True)
class Room:
    """A set of modules that stand on one level.

    Attributes:
        level: a module imports from rooms of a lower level, never sideways.
        modules: dotted names; each stands for itself and what is below it.
        why: the reason of the place.
    """

    level: int
    modules: tuple[str, ...]
    why: str


ROOMS = (
    Room(0, ("vastar_client.wire",), "bytes and messages, shared by both ends; no I/O"),
    Room(
        10,
        (
            "vastar_client._headers",
            "vastar_client._payload",
            "vastar_client.config",
            "vastar_client.errors",
            "vastar_client.helpers",
            "vastar_client.request",
            "vastar_client.response",
            "vastar_client.retry",
            "vastar_client.sse_parser",
        ),
        "what a caller builds, reads and catches; no socket, no loop",
    ),
    Room(
        20,
        (
            "vastar_client._bodies",
            "vastar_client._call_soon",
            "vastar_client._dialing",
            "vastar_client._entries",
            "vastar_client._link",
            "vastar_client._outgoing",
            "vastar_client._session",
            "vastar_client._streams",
            "vastar_client._trio_stream",
            "vastar_client._uploads",
        ),
        "a connection over its whole life, and the exchanges on it",
    ),
    Room(
        25,
        (
            "vastar_client._calls",
            "vastar_client._decoding",
            "vastar_client._reconnecting",
            "vastar_client._stream_answer",
        ),
        "requests as messages, and streamed answers but for the waiting",
    ),
    Room(26, ("vastar_client.sql",), "calls to databases as messages, rows, their errors"),
    Room(27, ("vastar_client.databases",), "what calls a database, on whichever client"),
    Room(
        30,
        (
            "vastar_client.async_client",
            "vastar_client.event_source",
            "vastar_client.streaming",
        ),
        "calls: the native client",
    ),
    Room(
        40,
        (
            "vastar_client.blocking",
            "vastar_client.blocking_databases",
            "vastar_client.blocking_events",
            "vastar_client.blocking_streaming",
            "vastar_client._loop_thread",
            "vastar_client._thread_calls",
        ),
        "plain calls over one loop thread",
    ),
    Room(
        50,
        (
            "vastar_client.testing",
            "vastar_client._fake_peer",
            "vastar_client._fake_streams",
            "vastar_client._fake_transports",
        ),
        "for the tests of connectors",
    ),
    Room(60, ("vastar_client",), "what a connector author imports: only re-exports"),
    # The runtime.
    Room(
        10,
        (
            "vastar_runtime._version",
            "vastar_runtime.audit",
            "vastar_runtime.config",
            "vastar_runtime.late_modules",
            "vastar_runtime.listeners",
            "vastar_runtime.call_log",
            "vastar_runtime.log_sink",
            "vastar_runtime.logs",
            "vastar_runtime.notify",
            "vastar_runtime.outcomes",
            "vastar_runtime.redaction",
            "vastar_runtime.runtime_files",
            "vastar_runtime.runtime_state",
            "vastar_runtime.waiters",
            "vastar_runtime.token_file",
        ),
        "values and small helpers that every room above speaks of",
    ),
    Room(11, ("vastar_runtime.workers.place",), "what a worker is given by its supervisor"),
    Room(15, ("vastar_runtime.policy",), "decisions; no trio, no wire, no clock of its own"),
    Room(15, ("vastar_runtime.transport",), "bytes to upstreams; knows no call"),
    Room(16, ("vastar_runtime.metrics",), "counts what happens; knows no call"),
    Room(16, ("vastar_runtime.sharing",), "policy state that the workers of a host share"),
    Room(17, ("vastar_runtime.streams",), "answers and request bodies in pieces, under credit"),
    Room(18, ("vastar_runtime.calls",), "a call: its deadline, its progress, its parts"),
    Room(25, ("vastar_runtime.usage",), "what tenants have used"),
    Room(35, ("vastar_runtime.patience",), "how long a connection waits for its caller"),
    Room(25, ("vastar_runtime.identity",), "who calls, and on whose behalf they may"),
    Room(19, ("vastar_runtime.workers",), "several processes behind one socket, and how they talk"),
    Room(20, ("vastar_runtime.connectors",), "turn a call into transport calls"),
    Room(20, ("vastar_runtime.pipeline",), "drives the policies around a connector it is given"),
    Room(21, ("vastar_runtime.credentials",), "adds keys to requests, behind the connectors"),
    Room(30, ("vastar_runtime.dispatch",), "message to call, outcome to message"),
    Room(30, ("vastar_runtime.outbox",), "the only place that encodes and sends"),
    Room(30, ("vastar_runtime.call_tasks",), "the tasks that calls run in"),
    Room(35, ("vastar_runtime.session_streams",), "all streams of a connection"),
    Room(35, ("vastar_runtime.refusing",), "what of a connection's requests is not begun at all"),
    Room(40, ("vastar_runtime.session",), "a connection is a nursery"),
    Room(44, ("vastar_runtime.further_connectors",), "databases and plug-ins, put together"),
    Room(44, ("vastar_runtime.policy_book",), "the policies of a configuration, for every call"),
    Room(45, ("vastar_runtime.unusable",), "what of a configuration only its use can show"),
    Room(46, ("vastar_runtime.assembly",), "all of it from a configuration; listens nowhere"),
    Room(47, ("vastar_runtime.receiving",), "from a socket to a caller that is served"),
    Room(48, ("vastar_runtime.metrics_listener",), "shows scrapers what was counted"),
    Room(50, ("vastar_runtime.server",), "listens, drains, ends"),
    Room(60, ("vastar_runtime.cli", "vastar_runtime.__main__"), "words of a person to a server"),
    Room(12, ("vastar_runtime",), "the package file: the version and nothing else"),
)

FORBIDDEN = (
    # (importing modules, imported modules, except in, reason)
    (("vastar_client",), ("vastar_runtime",), (), "the client is installed without the runtime"),
    (("vastar_client",), ("httpcore", "structlog", "httptools"), (), "the client stays small"),
    (
        ("vastar_client.wire", "vastar_runtime.policy"),
        ("trio", "anyio", "asyncio", "socket", "ssl", "select", "selectors", "threading", "time"),
        (),
        "wire and policy do no I/O and read no clock: the time is an argument",
    ),
    (("vastar_runtime.policy",), ("vastar_client",), (), "policies know no wire"),
    (
        ("vastar_runtime",),
        ("httptools", "httpcore"),
        ("vastar_runtime.transport",),
        "only transport speaks HTTP to upstreams",
    ),
    (
        ("vastar_runtime",),
        ("h11",),
        ("vastar_runtime.metrics_listener",),
        "only the metrics listener serves HTTP; transport has a faster parser",
    ),
    (
        ("vastar_runtime",),
        ("prometheus_client",),
        ("vastar_runtime.metrics.exposition", "vastar_runtime.metrics.gauges"),
        "2 MB that are loaded when somebody scrapes: `metrics` counts without it",
    ),
    (OURS, ("numpy",), (), "nothing here needs it"),
    (OURS, OUTSIDE, (), "the packages are installed without the rest of the repository"),
)

CLOCKLESS = ("vastar_client.wire", "vastar_runtime.policy")
CHANCE_AND_CLOCK = {
    "random": "the random source is an argument",
    "secrets": "the random source is an argument",
    "uuid": "the random source is an argument",
    "datetime": "the time is an argument",
}
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})


def _inside(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def room_of(module: str) -> Room | None:
    """The room of a module: the one that names it or the nearest package above it.

    A package's own file does not lend its room to unknown modules beside it: `vastar_client` and
    `vastar_runtime` name only themselves.
    """
    best: tuple[int, Room] | None = None
    for room in ROOMS:
        for name in room.modules:
            fits = module == name if name in OURS else _inside(module, (name,))
            if fits and (best is None or len(name) > best[0]):
                best = (len(name), room)
    return best[1] if best else None


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str, str]]:
    """Line, imported module and, for `from x import y`, the name y (else an empty string)."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, target, alias.name


def _chance_and_clock(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and sentence for each call that reads a clock or a random source of the process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"random", "secrets", "uuid"}:
            for alias in node.names:
                if alias.name not in {"Random", "UUID"}:
                    yield node.lineno, f"takes {alias.name} from {node.module}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            name = owner.id if isinstance(owner, ast.Name) else ""
            if name in {"random", "secrets", "uuid"} or (
                name == "datetime" and node.func.attr in CLOCK_CALLS
            ):
                yield node.lineno, f"calls {ast.unparse(node.func)}: {CHANCE_AND_CLOCK[name]}"


def _resolved(target: str, name: str, known: frozenset[str]) -> str:
    """`from a.b import c` imports the module a.b.c when there is one, else a name of a.b."""
    whole = f"{target}.{name}" if name else target
    return whole if whole in known or room_of(whole) not in (None, room_of(target)) else target


def _fault_of(module: str, imported: str) -> str | None:
    """What is wrong with this import, or None."""
    if imported == GENERATED and not module.startswith(CODEC):
        return "imports the generated code, which is for the codec and the tests"
    for importing, names, exempt, reason in FORBIDDEN:
        if _inside(module, importing) and _inside(imported, names) and not _inside(module, exempt):
            return f"imports {imported}: {reason}"
    if not _inside(imported, OURS):
        return None
    here, there = room_of(module), room_of(imported)
    if there is None:
        return f"imports {imported}, which no room of the table names"
    if module.startswith("vastar_runtime") and imported.startswith("vastar_client"):
        if not _inside(imported, ("vastar_client.wire",)):
            return f"imports {imported}: of the client the runtime may use vastar_client.wire only"
        return None
    if here is not None and here is not there and there.level >= here.level:
        return (
            f"imports {imported} (level {there.level}: {there.why}) "
            f"from level {here.level} ({here.why})"
        )
    return None


def faults_in(
    module: str, source: str, *, is_package: bool = False, known: frozenset[str] = frozenset()
) -> list[str]:
    """The faults of one module as `module:line: sentence`.

    Args:
        module: its dotted name.
        source: its text.
        is_package: whether it is an `__init__.py` (relative imports count from it).
        known: the dotted names of all modules of the tree, to tell modules from names.
    """
    tree = ast.parse(source)
    found: list[tuple[int, str]] = []
    if _inside(module, OURS) and room_of(module) is None:
        found.append((1, "is in no room: give it a line in ROOMS of tools/check_layers.py"))
    for line, target, name in _imports(tree, module, is_package=is_package):
        if _inside(module, OUTSIDE):
            is_generated = GENERATED in (target, f"{target}.{name}")
            if is_generated and not _inside(module, ("tests", "tools.fuzz.targets")):
                found.append((line, "imports the generated code: for the codec and the tests"))
            continue
        fault = _fault_of(module, _resolved(target, name, known))
        if fault:
            found.append((line, fault))
    if _inside(module, CLOCKLESS):
        found.extend(_chance_and_clock(tree))
    return [f"{module}:{line}: {sentence}" for line, sentence in dict.fromkeys(found)]


def faults_of_tree(root: Path) -> list[str]:
    """The faults of all modules below `root`."""
    files: dict[str, Path] = {}
    for top in (*OURS, *OUTSIDE):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    known = frozenset(files)
    return [
        fault
        for module, path in files.items()
        if module != GENERATED
        for fault in faults_in(
            module,
            path.read_text(encoding="utf-8"),
            is_package=path.name == "__init__.py",
            known=known,
        )
    ]


def main() -> int:
    """Print each fault of this repository; 0 when there is none."""
    faults = faults_of_tree(ROOT)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
