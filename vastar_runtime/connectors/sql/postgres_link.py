"""One connection to PostgreSQL: libpq's own non-blocking calls, waited for by Trio.

Only what psycopg documents of `psycopg.pq` is used. A `Link` knows the protocol's turns and nothing
of jobs: something is sent, `flushed`, and its results are read one by one until None says that the
connection is idle. Errors of the server are results; what is raised is that the connection ended.

Names are resolved here, as libpq would block for them; the addresses go in beside the names, which
TLS still checks. Cancelling is a connection of its own, that the server closes once it has told the
statement's process: before `cancel` has returned nothing else may be sent.
"""

import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import psycopg
import trio
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus, PollingStatus, TransactionStatus
from psycopg.pq.abc import PGcancelConn, PGconn, PGresult

__all__ = ["HAS_CANCEL", "HAS_CHUNKS", "Link", "LinkError", "Sent", "connect", "look_up"]

HAS_CANCEL: Final = psycopg.capabilities.has_cancel_safe()
HAS_CHUNKS: Final = psycopg.capabilities.has_stream_chunked()
"""What libpq has since version 17; without, an old way is taken."""

_FAILED: Final = int(ExecStatus.FATAL_ERROR)
_SYNC: Final = int(ExecStatus.PIPELINE_SYNC)
_ABORTED: Final = int(ExecStatus.PIPELINE_ABORTED)

Sent: TypeAlias = tuple[
    bytes, Sequence[Any] | None, Sequence[int], Sequence[int] | None, bytes | None
]
"""Text, parameters, their types and formats, and the name of what is prepared, as of `send`."""


_CANCEL_S: Final = 1.0
_CHUNK_ROWS: Final = 32
"""Rows that libpq hands over at once: it has them in memory, however long they are."""


class LinkError(Exception):
    """The connection cannot be made, or ended."""


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a server. Raises OSError, UnicodeError."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def connect(parameters: Mapping[str, str | int], addresses: Sequence[str]) -> "Link":
    """A new connection, logged in; takes as long as it is let.

    Args:
        parameters: as libpq names them; `host` and `port` of one server.
        addresses: of it, tried in this order.

    Raises:
        LinkError: that did not work.
    """
    host, port = str(parameters["host"]), str(parameters["port"])
    several = {
        "host": ",".join([host] * len(addresses)),
        "hostaddr": ",".join(addresses),
        "port": port,
    }
    conninfo = make_conninfo("", **{**parameters, **several})
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        await _poll(pgconn)
    except psycopg.OperationalError as error:
        pgconn.finish()
        raise LinkError(str(error)) from None
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    return Link(pgconn)


async def _poll(pgconn: PGconn) -> None:
    """Until it is connected."""
    while True:
        if pgconn.status is pq.ConnStatus.BAD:
            raise LinkError(pgconn.get_error_message())
        match pgconn.connect_poll():
            case PollingStatus.OK:
                return
            case PollingStatus.READING:
                await trio.lowlevel.wait_readable(pgconn.socket)
            case PollingStatus.WRITING:
                await trio.lowlevel.wait_writable(pgconn.socket)
            case _:
                raise LinkError(pgconn.get_error_message())


class Link:
    """One connection.

    Args:
        pgconn: connected, and not blocking.

    Attributes:
        pgconn: for what it tells.
        is_running: something was sent whose results are not all read.
        is_sent: all of it has left.
        is_ending: it failed, and what is left of its results comes by itself.
    """

    def __init__(self, pgconn: PGconn) -> None:
        self.pgconn = pgconn
        self.is_running = False
        self.is_sent = True
        self.is_ending = False
        self._is_batch = False
        self._is_batch_in_chunks = False
        self._fd = pgconn.socket
        self._readable = select.poll()
        self._readable.register(self._fd, select.POLLIN)

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.pgconn.status is pq.ConnStatus.OK

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and neither a statement runs nor a transaction is under way."""
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def has_news(self) -> bool:
        """Whether the server has said something unasked: mostly that it leaves."""
        return bool(self._readable.poll(0))

    async def send(
        self,
        text: bytes,
        data: Sequence[Any] | None = None,
        types: Sequence[int] = (),
        formats: Sequence[int] | None = None,
        *,
        name: bytes | None = None,
    ) -> None:
        """Send a statement, which may be one that is prepared, and take its rows in chunks.

        Args:
            text: of one statement.
            data: its parameters.
            types: of each, as the server numbers them.
            formats: of each.
            name: of the statement that is prepared.

        Raises:
            LinkError: the connection ended.
        """
        pgconn = self.pgconn
        self._begin()
        try:
            if name is None:
                pgconn.send_query_params(text, data, types, formats)
            else:
                pgconn.send_query_prepared(name, data, formats)
            self._take_in_chunks()
        except psycopg.OperationalError as error:
            raise LinkError(str(error)) from None
        await self._flushed()

    async def send_batch(self, batch: Sequence[Sent], *, in_chunks: bool = False) -> None:
        """Send several statements at once; the results of all follow each other.

        Where one fails those behind it are not done, and have no results.

        Args:
            batch: none of which has rows to speak of; else:
            in_chunks: take rows in chunks, of all but the first.

        Raises:
            LinkError: the connection ended.
        """
        pgconn = self.pgconn
        self._begin()
        try:
            pgconn.enter_pipeline_mode()
            self._is_batch, self._is_batch_in_chunks = True, in_chunks
            for text, data, types, formats, name in batch:
                if name is None:
                    pgconn.send_query_params(text, data, types, formats)
                else:
                    pgconn.send_query_prepared(name, data, formats)
            pgconn.pipeline_sync()
        except psycopg.OperationalError as error:
            raise LinkError(str(error)) from None
        await self._flushed()

    async def prepare(self, name: bytes, text: bytes, types: Sequence[int]) -> PGresult:
        """Have the server prepare a statement; the result. Raises LinkError."""
        self._begin()
        try:
            self.pgconn.send_prepare(name, text, types)
        except psycopg.OperationalError as error:
            raise LinkError(str(error)) from None
        return await self._last()

    async def command(self, text: bytes) -> PGresult:
        """The last result of a statement of ours, or of several of them. Raises LinkError."""
        self._begin()
        try:
            self.pgconn.send_query(text)
        except psycopg.OperationalError as error:
            raise LinkError(str(error)) from None
        return await self._last()

    async def _last(self) -> PGresult:
        await self._flushed()
        last: PGresult | None = None
        while (result := await self.next()) is not None:
            last = result
        if last is None:
            raise LinkError("the server gave no result")
        return last

    def _take_in_chunks(self) -> None:
        if HAS_CHUNKS:
            self.pgconn.set_chunked_rows_mode(_CHUNK_ROWS)
        else:
            self.pgconn.set_single_row_mode()

    def _begin(self) -> None:
        self.is_running, self.is_sent, self.is_ending = True, False, False

    async def _flushed(self) -> None:
        pgconn = self.pgconn
        try:
            while pgconn.flush():
                await _readable_or_writable(self._fd)
                # A server that cannot get rid of its words takes none either.
                pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise LinkError(str(error)) from None
        self.is_sent = True

    async def next(self) -> PGresult | None:
        """The next result of what was sent; None is the end. Raises LinkError."""
        pgconn = self.pgconn
        try:
            while True:
                while pgconn.is_busy():
                    await trio.lowlevel.wait_readable(self._fd)
                    pgconn.consume_input()
                result = pgconn.get_result()
                if not self._is_batch:
                    break
                if result is None:  # the end of one of several
                    if self._is_batch_in_chunks:
                        with suppress(psycopg.OperationalError):  # that was the last
                            self._take_in_chunks()
                    continue
                if result.status == _ABORTED:
                    continue  # behind a failure
                if result.status == _SYNC:
                    self._is_batch = False
                    pgconn.exit_pipeline_mode()
                    result = None
                break
        except psycopg.OperationalError as error:
            raise LinkError(str(error)) from None
        if result is None:
            self.is_running = False
        elif result.status == _FAILED:
            self.is_ending = True
        return result

    async def drain(self) -> None:
        """Read what is left of the results and drop it. Raises LinkError."""
        while (result := await self.next()) is not None:
            if result.status in {ExecStatus.COPY_OUT, ExecStatus.COPY_IN, ExecStatus.COPY_BOTH}:
                raise LinkError("it copies")  # no end of that comes by itself

    async def cancel(self) -> bool:
        """Ask the server to stop what runs; whether it was told in time. Raises nothing."""
        with trio.move_on_after(_CANCEL_S):
            if not HAS_CANCEL:
                # An old libpq: it blocks, for as long as the server's machine is silent.
                handle = self.pgconn.get_cancel()
                return await trio.to_thread.run_sync(_cancelled, handle, abandon_on_cancel=True)
            asking = self.pgconn.cancel_conn()
            try:
                return await _asked(asking)
            finally:
                asking.finish()
        return False

    def close(self) -> None:
        """End it; the server hears of it, if it listens."""
        self.pgconn.finish()


def _cancelled(handle: pq.abc.PGcancel) -> bool:
    try:
        handle.cancel()
    except psycopg.OperationalError:
        return False
    return True


async def _asked(asking: PGcancelConn) -> bool:
    try:
        asking.start()
        while True:
            match asking.poll():
                case PollingStatus.OK:
                    return True
                case PollingStatus.READING:
                    await trio.lowlevel.wait_readable(asking.socket)
                case PollingStatus.WRITING:
                    await trio.lowlevel.wait_writable(asking.socket)
                case _:
                    return False
    except psycopg.OperationalError:
        return False


async def _readable_or_writable(fd: int) -> None:
    async with trio.open_nursery() as nursery:

        async def readable() -> None:
            await trio.lowlevel.wait_readable(fd)
            nursery.cancel_scope.cancel()

        nursery.start_soon(readable)
        await trio.lowlevel.wait_writable(fd)
        nursery.cancel_scope.cancel()
