"""The connector of databases: one call in, one outcome out, for all drivers.

Shape: a payload becomes a `Job`, the tenant's source lends a session, which runs the job behind all
policies, and the results become a payload, a piece at a time: other calls go on between the pieces.
Which driver runs is the source's business, and whether that needs threads the driver's; a call that
names a driver by its connector must name a source of that kind.

A stream fetches the next rows when the caller's credit has let the ones before go out: at most one
piece is held, of about `_PIECE_BYTES`.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import trio

from vastar_client.wire import PayloadFormat
from vastar_runtime.calls import Call
from vastar_runtime.connectors.sql.answers import StreamWriter, answer_pieces, in_pieces
from vastar_runtime.connectors.sql.errors import Blame, SqlError, meaning_of
from vastar_runtime.connectors.sql.jobs import Job, job_of, wants_json
from vastar_runtime.connectors.sql.sessions import Rows
from vastar_runtime.connectors.sql.sources import Source
from vastar_runtime.outcomes import (
    Failure,
    FailureKind,
    Outcome,
    Reply,
    Streamed,
    too_large,
)
from vastar_runtime.policy.classify import AttemptResult, Meaning
from vastar_runtime.transport import Origin
from vastar_runtime.transport.progress import Phase, Progress

__all__ = ["DATABASE_NAMES", "SqlConnector", "Work"]

DATABASE_NAMES: Final = ("sqlite", "postgres", "db", "sql", "mysql")
"""`db` and `sql` take any source; `mysql` is told that there is none."""

_DRIVERS: Final = frozenset({"sqlite", "postgres"})
_FRAME_ROOM_BYTES: Final = 1024
_PIECE_BYTES: Final = 128 * 1024
_FIRST_ROWS: Final = 256
_LEAST_ROWS: Final = 16
_MOST_ROWS: Final = 16_384
_SWEEP_S: Final = 5.0

T = TypeVar("T")
Work = Callable[[Progress], Awaitable[tuple[Meaning, AttemptResult | None]]]
"""One attempt: it tells how far it got, and gives what its end means."""


class Lease(Protocol):
    """One call's way to a server, through the layers of policy."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what the call held."""

    async def run(self, origin: str, work: Work, server: Origin | None = None) -> Failure | None:
        """Have `work` done, as often as the policies say; why a policy refused, where one did."""


class Works(Protocol):
    """What the connector is given to have work done with."""

    def lease(self, call: Call) -> Lease:
        """The way of one call."""


class SqlConnector:
    """Operations `query`, `execute`, `execute_many` and `transaction`.

    Args:
        works: the layers of policy.
        sources: by tenant and name.
    """

    can_stream = True

    def __init__(self, works: Works, sources: Mapping[tuple[str, str], Source]) -> None:
        self._works = works
        self.sources = dict(sources)
        self._left: list[Source] = []
        self._appeared = trio.Event()

    def configure(self, sources: Mapping[tuple[str, str], Source]) -> None:
        """Serve the calls from now on from these; those that are left out are closed."""
        kept = set(map(id, sources.values()))
        self._left += [each for each in self.sources.values() if id(each) not in kept]
        self.sources = dict(sources)
        self._appeared.set()
        self._appeared = trio.Event()

    async def run(self) -> None:
        """Close what idles, for ever; everything at the end."""
        try:
            while True:
                if not self.sources and not self._left:
                    await self._appeared.wait()
                await trio.sleep(_SWEEP_S)
                await self._sweep()
        finally:
            with trio.CancelScope(shield=True):
                for source in (*self.sources.values(), *self._left):
                    await source.aclose()

    async def _sweep(self) -> None:
        left, self._left = self._left, []
        for source in left:
            await source.aclose()
        for source in tuple(self.sources.values()):
            await source.sweep(trio.current_time())

    async def execute(self, call: Call) -> Outcome:
        """Do what `call` asks of a database. Raises nothing but cancellation."""
        try:
            job = job_of(call)
            source = self._source(call, job)
        except SqlError as error:
            await trio.lowlevel.checkpoint()
            kind = FailureKind.NOT_SUPPORTED if error.blame is Blame.SERVER else error.kind
            return Failure(kind, error.words)
        if call.upload is not None or (call.stream is not None and job.operation != "query"):
            await trio.lowlevel.checkpoint()
            words = "only the answer of a query is streamed, and its payload comes with the call"
            return Failure(FailureKind.INVALID_REQUEST, words)
        call.limit_time(job.timeout_ms)
        call.origin = source.origin
        attempts = _Attempts(call, job, source)
        with self._works.lease(call) as lease:
            refused = await lease.run(source.origin, attempts.work, source.server)
        return attempts.outcome(refused)

    def _source(self, call: Call, job: Job) -> Source:
        asked = call.request.connector_name
        if asked == "mysql":
            raise SqlError(Blame.SERVER, "connector mysql is not supported: use sqlite or postgres")
        tenant = call.request.tenant_id
        names = sorted(name for of, name in self.sources if of == tenant)
        name = job.source or (names[0] if len(names) == 1 else "")
        source = self.sources.get((tenant, name))
        if source is None:
            known = ", ".join(names) or "none"
            what = f"no data source named {job.source[:100]}" if job.source else "no source named"
            words = f"{what}: tenant {tenant[:100]} has {known}"
            raise SqlError(Blame.CALLER, words)
        if asked in _DRIVERS and asked != source.driver_name:
            words = f"data source {name} is of connector {source.driver_name}, not {asked}"
            raise SqlError(Blame.CALLER, words)
        return source


class _Attempts:
    """All attempts at one job."""

    def __init__(self, call: Call, job: Job, source: Source) -> None:
        self._call = call
        self._job = job
        self._source = source
        self._as_json = wants_json(call)
        self._is_safe = call.request.idempotency_key is not None
        self._error: SqlError | None = None
        self._outcome: Outcome | None = None

    def outcome(self, refused: Failure | None) -> Outcome:
        """What becomes of the call."""
        if self._outcome is not None:
            return self._outcome
        if self._error is None:
            assert refused is not None, "an attempt ends with an answer, an error or a refusal"
            return refused
        error = self._error
        driver = self._source.driver_name
        # How far it got is the call's to say: an attempt before this one may have been sent.
        words, logged = f"{driver}: {error.words}", f"{driver}: {error.logged}"
        return Failure(error.kind, words, logged=logged)

    async def work(self, progress: Progress) -> tuple[Meaning, AttemptResult | None]:
        """One attempt."""
        self._error = None
        try:
            await self._attempt(progress)
        except SqlError as error:
            self._error = error
        else:
            progress.completed = True
        finally:
            if progress.queued_us:
                self._call.queued_us += progress.queued_us
        return meaning_of(self._error, progress.disposition, is_safe=self._is_safe)

    async def _attempt(self, progress: Progress) -> None:
        call, job = self._call, self._job
        progress.phase = Phase.POOL
        lent = self._source.lend(writes=job.operation != "query", progress=progress)
        async with lent as session:
            progress.phase = Phase.HEAD

            def begun() -> None:
                progress.request_begun = progress.request_sent = True

            if call.stream is not None:
                self._outcome = await self._stream(session.stream(job, begun), progress)
                return
            results = await self._in_time(session.run(job, begun))
        payload = await in_pieces(answer_pieces(job, results, as_json=self._as_json))
        call.received_bytes = len(payload)
        if len(payload) + _FRAME_ROOM_BYTES > call.max_answer_bytes:
            self._outcome = too_large(call.max_answer_bytes)
        else:
            kind = PayloadFormat.JSON if self._as_json else PayloadFormat.NATIVE
            self._outcome = Reply(payload, kind)

    async def _in_time(self, work: Awaitable[T]) -> T:
        """In the time that the source gives to a statement, and to each piece of a stream."""
        timeout_s = self._source.config.statement_timeout_s
        if self._call.deadline.expires_at_s <= trio.current_time() + timeout_s:
            return await work  # the call ends first, and a scope costs microseconds
        with trio.move_on_after(timeout_s):
            return await work
        raise SqlError(Blame.TIMEOUT, f"the statement timeout of {timeout_s:g} s passed")

    async def _stream(self, pieces: Rows, progress: Progress) -> Streamed:
        stream = self._call.stream
        assert stream is not None
        write = StreamWriter(as_json=self._as_json)
        count, rows, is_first = _FIRST_ROWS, 0, True
        try:
            while True:
                piece = await self._in_time(pieces.next(count))
                if not piece.rows and not is_first:
                    return Streamed(200, [("x-row-count", str(rows))])
                data = await in_pieces(write(piece))
                if is_first:
                    is_first = False
                    progress.response_started = True
                    headers = [("content-type", write.content_type)]
                    await stream.start(200, headers, is_sse=False)
                await stream.send(data)
                self._call.received_bytes += len(data)
                rows += len(piece.rows)
                count = _next_count(len(piece.rows), len(data))
        finally:
            with trio.CancelScope(shield=True):
                await pieces.aclose()


def _next_count(rows: int, size_bytes: int) -> int:
    """Rows of the next piece, for it to be about as long as it should be."""
    return max(_LEAST_ROWS, min(_MOST_ROWS, rows * _PIECE_BYTES // max(size_bytes, 1)))
