"""What a session keeps of each call under way: where its answer is put, what may still come.

Shape: an entry is written by the session, read by one caller, and does no I/O. `Entry` waits for
one answer, in a task; the blocking client has an entry of its own for a thread that waits
(`_thread_calls`), and both are `UnaryEntry`s. `StreamEntry` takes the frames of a stream in their
one legal order, holds at most one window of data, and wakes its caller for each; what is out of
order is the runtime's fault and costs the connection, since nothing that follows can be trusted.
"""

from collections import deque

import anyio

from vastar_client._payload import error_of
from vastar_client._uploads import Upload
from vastar_client.errors import ConnectionClosed
from vastar_client.wire import (
    Disposition,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    RemoteProtocolError,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.limits import INITIAL_STREAM_WINDOW_BYTES
from vastar_client.wire.windows import GROWN_STREAM_WINDOW_BYTES, ReceiveWindow

__all__ = ["Entry", "StreamEntry", "UnaryEntry"]


class UnaryEntry:
    """A message on its way and the place where its answer is put. Its caller is told by `wake`.

    Attributes:
        upload: what brings its body, when the message has none.
        written: whether any of its bytes may have left.
        error: why there is no answer: what the runtime or the connection says, or what the
            caller's own body raised.
    """

    __slots__ = ("answer", "error", "message", "upload", "written")

    def __init__(self, message: ExecuteRequest | HealthCheck, upload: Upload | None = None) -> None:
        self.message = message
        self.upload = upload
        self.answer: ExecuteResponse | HealthResponse | None = None
        self.error: Exception | None = None
        self.written = False

    @property
    def request_id(self) -> int:
        """The id of the call, 0 for a health check."""
        return self.message.request_id if isinstance(self.message, ExecuteRequest) else 0

    @property
    def disposition(self) -> Disposition:
        """How far it got, as far as this end can know."""
        return Disposition.SENT_NO_RESPONSE if self.written else Disposition.NOT_SENT

    def finish(self, answer: ExecuteResponse | HealthResponse) -> None:
        """Wake the caller with an answer."""
        self.answer = answer
        self.wake()

    def fail(self, error: Exception) -> None:
        """Wake the caller with an error."""
        self.error = error
        self.wake()

    def lose(self, reason: str) -> None:
        """The connection ended."""
        self.fail(ConnectionClosed(reason, None, self.request_id, disposition=self.disposition))

    def wake(self) -> None:
        """There is an answer or an error; may be called again."""
        raise NotImplementedError


class Entry(UnaryEntry):
    """One that a task waits for.

    Attributes:
        done: set once there is an answer or an error.
    """

    __slots__ = ("done",)

    def __init__(self, message: ExecuteRequest | HealthCheck, upload: Upload | None = None) -> None:
        super().__init__(message, upload)
        self.done = anyio.Event()

    def wake(self) -> None:
        """Let the task go on."""
        self.done.set()


class StreamEntry:
    """A streamed call on its way, and what has come of its answer and was not read yet.

    Attributes:
        upload, written: as on `Entry`.
        head: None until it has come.
        chunks: data that was not read yet, at most one window of it.
        end: the final frame, None until it has come.
        error: why the answer is not whole; what came before it can still be read.
        window: credit that the runtime has for data.
        heard: frames of this stream so far; a number that stands still is silence.
    """

    __slots__ = (
        "_news",
        "_sequence",
        "chunks",
        "end",
        "error",
        "head",
        "heard",
        "message",
        "upload",
        "window",
        "written",
    )

    def __init__(self, message: ExecuteRequest, upload: Upload | None = None) -> None:
        self.message = message
        self.upload = upload
        self.written = False
        self.head: StreamStart | None = None
        self.chunks: deque[bytes] = deque()
        self.end: StreamEnd | None = None
        self.error: Exception | None = None
        self.window = ReceiveWindow(INITIAL_STREAM_WINDOW_BYTES, GROWN_STREAM_WINDOW_BYTES)
        self.heard = 0
        self._sequence = 0
        self._news: anyio.Event | None = None

    @property
    def request_id(self) -> int:
        """The id of the call."""
        return self.message.request_id

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.end is not None or self.error is not None

    @property
    def disposition(self) -> Disposition:
        """How far it got, as far as this end can know."""
        if self.head is not None:
            return Disposition.RESPONSE_STARTED
        return Disposition.SENT_NO_RESPONSE if self.written else Disposition.NOT_SENT

    def start(self, start: StreamStart) -> None:
        """Its head came.

        Raises:
            RemoteProtocolError: it is the second one.
        """
        if self.head is not None:
            raise self._wrong("a second StreamStart came")
        self.head = start
        self._tell()

    def take_chunk(self, chunk: StreamChunk) -> None:
        """Data came.

        Raises:
            RemoteProtocolError: before the head, out of order, or beyond the window.
        """
        if self.head is None:
            raise self._wrong("a StreamChunk came before the StreamStart")
        if chunk.sequence != self._sequence:
            raise self._wrong(f"StreamChunk {chunk.sequence} came where {self._sequence} was due")
        self._sequence += 1
        if chunk.data:
            self.window.received(len(chunk.data))
            # A copy: a view would keep all that was received together with it.
            self.chunks.append(bytes(chunk.data))
            self._tell()

    def finish(self, end: StreamEnd | ExecuteResponse) -> None:
        """Its final frame came. A request that could not be read at all is answered as a call is.

        Raises:
            RemoteProtocolError: it says that all went well, and there was no head.
        """
        error = error_of(end)
        if error is None and (self.head is None or not isinstance(end, StreamEnd)):
            raise self._wrong("a stream ended well without a head")
        if isinstance(end, StreamEnd):
            self.end = end
        self.fail(error)

    def fail(self, error: Exception | None) -> None:
        """Nothing more comes, because of `error` where there is one; the first call counts."""
        if self.error is None:
            self.error = error
        self._tell()

    def lose(self, reason: str) -> None:
        """The connection ended."""
        self.fail(ConnectionClosed(reason, None, self.request_id, disposition=self.disposition))

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    async def wait(self) -> None:
        """Wait until something more of it is there. One task at a time."""
        self._news = anyio.Event()
        await self._news.wait()

    def _wrong(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"{what} (request {self.request_id})", request_id=self.request_id, closes=True
        )
