"""The run itself: upstreams, runtime and clients put together, and happenings one after another.

Everything that judges is in this one process: the ledger, the upstream that counts, the sampler. So
no death of another process takes an account with it. Happenings are done in a row, each to its end;
on a slow machine the plan takes longer, and nothing else changes.
"""

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from tools.faults import FaultProxy, Plan, serve_hostile
from tools.soak._clients import Client, Clients
from tools.soak._ledger import Downtime, Ledger
from tools.soak._runtime import Runtime, RuntimeGoneError, bugs_logged, status_of, write_config
from tools.soak._samples import Book, Noted, Sample, Told, busy, held, told
from tools.soak._schedule import WEATHERS, Happening, schedule
from tools.soak._upstream import (
    CountingUpstream,
    counting_upstream,
    faulty_way,
    refusing_port,
    silent_upstream,
)
from tools.soak._verdict import Verdict, verdict
from tools.soak._words import Spec

__all__ = ["Report", "Wanted", "soak"]

_EVERY_S: Final = 1.0
_SETTLES_S: Final = 20.0
_LOOK_S: Final = 0.1
_BUSY_S: Final = 5.0
_GLANCE_S: Final = 0.005
_SHARES: Final = {"async": 0.5, "blocking": 0.35, "raw": 0.15}
_AT_ONCE: Final = {"async": 16, "blocking": 8, "raw": 1}
_UPSTREAM_AWAY_S: Final = 0.5


@attrs.frozen
class Wanted:
    """What to do.

    Attributes:
        run_s: how long.
        seed: of all chance but for the scheduler's.
        workers: of the runtime.
        config: of the user's; None: one is written.
        socket_path: of a runtime that is there and is to stay; None: one is started.
        folder: for all that is written.
        calls_per_s: about.
        recover_s: how long a client may take to find the runtime again.
    """

    run_s: float
    folder: Path
    seed: int = 0
    workers: int = 1
    config: Path | None = None
    socket_path: str | None = None
    calls_per_s: float = 120.0
    recover_s: float = 15.0


@attrs.frozen
class Report:
    """What came of it."""

    book: Book
    ledger: Ledger
    verdict: Verdict
    recoveries_s: list[float]
    client_kills: int


@attrs.define(eq=False)
class _Soak:
    """A run under way."""

    wanted: Wanted
    runtime: Runtime
    upstream: CountingUpstream
    faulty: FaultProxy
    ledger: Ledger
    clients: Clients
    book: Book
    nursery: trio.Nursery
    urls: dict[str, str]
    begun_s: float = attrs.field(factory=time.monotonic)
    epoch: int = 1
    _clients_made: int = 0
    _is_down: bool = False
    _samples: trio.Lock = attrs.field(factory=trio.Lock)

    def now_s(self) -> float:
        return time.monotonic() - self.begun_s

    # --- samples --------------------------------------------------------------------------------

    async def sample(self, *, is_quiet: bool = False) -> Told | None:
        async with self._samples:
            now = told(await status_of(self.runtime.socket_path)) if self.runtime.pid else None
            by_how, by_kind = self.book.since_last(self.ledger.outcomes)
            self.book.add(
                Sample(
                    round(self.now_s(), 3),
                    self.epoch,
                    self.ledger.calls,
                    held(self._names()),
                    now,
                    by_how,
                    by_kind,
                    self.upstream.connections,
                    is_quiet,
                )
            )
        return now

    async def sample_for_ever(self) -> None:
        while True:
            until_s = trio.current_time() + _EVERY_S
            await self.sample()
            if self.runtime.has_ended and not self._is_down:
                self.ledger.wrong("the runtime ended by itself")
                self.runtime.pid = 0
                self._is_down = True
            await trio.sleep_until(until_s)

    def _names(self) -> dict[int, str]:
        first, *others = self.runtime.pids() or [0]
        names = {first: f"runtime {self.runtime.starts}"} if first else {}
        names |= {pid: f"worker {self.runtime.starts}.{pid}" for pid in others}
        return names | {
            each.process.pid: f"client {name}" for name, each in self.clients.living.items()
        }

    def note(self, what: str, amount: float = 0.0) -> None:
        self.book.add(Noted(round(self.now_s(), 3), what, round(amount, 3)))

    # --- happenings -----------------------------------------------------------------------------

    async def add_client(self, kind: str) -> None:
        self._clients_made += 1
        spec = Spec(
            name=f"{kind}.{self._clients_made}",
            kind=kind,
            seed=self.wanted.seed,
            socket_path=self.runtime.socket_path,
            has_database=self.wanted.config is None and self.wanted.socket_path is None,
            at_once=_AT_ONCE[kind],
            calls_per_s=self.wanted.calls_per_s * _SHARES[kind],
            **self.urls,
        )
        await self.clients.start(spec, self.nursery)

    async def do(self, happening: Happening) -> None:
        which = happening.which
        match happening.what:
            case "quiet":
                await self.quiet()
            case "weather":
                text = WEATHERS[which % len(WEATHERS)]
                self.faulty.plan = Plan.parse(text, seed=which)
                self.note(f"weather {text or 'fine'}")
            case "restart upstream":
                self.upstream.restart(_UPSTREAM_AWAY_S)
                self.note("restart upstream")
            case "reload":
                self._write_config(which + 1)
                self.runtime.reload()
                self.note("reload")
            case "kill client":
                await self._kill_client(which)
            case what:
                await self._end_runtime(what, which)

    def _write_config(self, variant: int) -> None:
        if self.wanted.config is None and self.wanted.socket_path is None:
            write_config(self.wanted.folder, self.urls, variant)

    async def _kill_client(self, which: int) -> None:
        kind = list(_SHARES)[which % len(_SHARES)]
        client = next((c for c in self.clients.living.values() if c.spec.kind == kind), None)
        if client is not None:
            await self._until_busy(client)
            left = await self.clients.kill(client)
            self.note(f"kill client {client.spec.kind}", left)
            await self.add_client(client.spec.kind)

    async def _until_busy(self, client: Client) -> None:
        """Wait for a call under way, of the asynchronous client for one that would hang on."""
        with trio.move_on_after(_BUSY_S):
            while not any(  # noqa: ASYNC110 - the ledger wakes nobody; this is rare
                client.spec.kind != "async" or call.kind == "left"
                for call in self.ledger.open_of(client.spec.name)
            ):
                await trio.sleep(_GLANCE_S)

    async def _end_runtime(self, what: str, which: int) -> None:
        """A death of the runtime, or of a part of it, and its return."""
        began_s = time.monotonic()
        down = Downtime(began_s, float("inf"))
        self.ledger.downtimes.append(down)
        self._is_down = True
        if what == "kill worker":
            self.runtime.kill_worker(which)
        else:
            if what == "drain":
                code = await self.runtime.drain()
                if code:
                    self.ledger.wrong(f"drained, the runtime ended with exit code {code}")
            else:
                await self.runtime.kill()
            await self.runtime.start()
        self.epoch += 1
        self._is_down = False
        down.until_s = time.monotonic()
        self.clients.runtime_is_back(down.until_s)
        self.note(what, down.until_s - began_s)

    async def quiet(self) -> None:
        """Have everybody rest, see that the runtime does, compare the accounts, and go on."""
        began_s = time.monotonic()
        await self.clients.rest()
        found: list[str] = ["nothing was looked at"]
        until_s = trio.current_time() + _SETTLES_S
        while found and trio.current_time() < until_s:
            await trio.sleep(_LOOK_S)
            now = told(await status_of(self.runtime.socket_path))
            found = busy(now, self.upstream.in_progress)
        if found:
            self.ledger.wrong(f"not at rest after {_SETTLES_S:g} s: {', '.join(found)}")
        self.ledger.settle()
        self.upstream.forget()
        self.faulty.happenings.clear()
        await self.sample(is_quiet=True)
        self.note("quiet", time.monotonic() - began_s)
        await self.clients.go()

    async def run(self) -> None:
        """All of it, but for the verdict."""
        wanted = self.wanted
        await self.sample(is_quiet=True)
        for kind in _SHARES:
            await self.add_client(kind)
        plan = schedule(
            wanted.run_s,
            wanted.seed,
            workers=wanted.workers,
            may_kill=wanted.socket_path is None,
        )
        self.nursery.start_soon(self.sample_for_ever)
        begun_s = trio.current_time()
        for happening in plan:
            await trio.sleep_until(begun_s + happening.at_s)
            await self.do(happening)
        await self.clients.end()


async def soak(wanted: Wanted) -> Report:
    """Run one; what came of it.

    Raises:
        RuntimeGoneError: there is no runtime to put under load.
        OSError: something cannot be listened on, or written.
    """
    wanted = attrs.evolve(wanted, folder=wanted.folder.resolve())
    wanted.folder.mkdir(parents=True, exist_ok=True)
    book = Book(wanted.folder / "samples.jsonl")
    book.path.unlink(missing_ok=True)
    ledger = Ledger(grace_s=wanted.recover_s)
    clients = Clients(ledger, wanted.folder / "clients.log")
    async with (
        counting_upstream(ledger) as upstream,
        silent_upstream() as silent,
        serve_hostile() as hostile,
        faulty_way(upstream.port) as faulty,
    ):
        with refusing_port() as refusing:
            ports = {
                "steady": upstream.port,
                "faulty": faulty.port,
                "hostile": hostile.port,
                "silent": silent,
                "refusing": refusing.getsockname()[1],
            }
            urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
            async with _runtime(wanted, urls) as runtime, trio.open_nursery() as nursery:
                run = _Soak(wanted, runtime, upstream, faulty, ledger, clients, book, nursery, urls)
                try:
                    await run.run()
                finally:
                    clients.kill_all()
                nursery.cancel_scope.cancel()
    if wanted.socket_path is None:
        ledger.wrongs.extend(bugs_logged(wanted.folder / "runtime.log"))
    found = verdict(book, ledger, clients.recoveries_s, wanted.recover_s)
    return Report(book, ledger, found, clients.recoveries_s, clients.kills)


@asynccontextmanager
async def _runtime(wanted: Wanted, urls: dict[str, str]) -> AsyncIterator[Runtime]:
    """The runtime of the run; one that was started is ended with the block."""
    log = wanted.folder / "runtime.log"
    if wanted.socket_path is not None:
        status = await status_of(wanted.socket_path)
        if status is None:
            raise RuntimeGoneError(f"no runtime answers at {wanted.socket_path}")
        yield Runtime(wanted.socket_path, (), log, starts=1, pid=status["pid"])
        return
    config = wanted.config or write_config(wanted.folder, urls, 0)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="vastar-soak-") as folder:  # paths of sockets are short
        path = str(Path(folder, "s"))
        runtime = Runtime(path, ("--config", str(config.resolve())), log, wanted.workers)
        try:
            await runtime.start()
            yield runtime
        finally:
            with trio.CancelScope(shield=True):
                await runtime.stop()
