"""The one place that encodes and sends on a connection of a caller.

Shape: request tasks put messages into a queue; one writer task encodes whatever is there and
hands it to the socket in one write. A cancelled write leaves half a frame on the wire, so those
who ask for a send never wait for the socket themselves: they can be cancelled at any time, the
writer cannot be but with the whole connection. A message that nobody will join (the only call of
its connection, a large chunk) is tried at once, in its sender's task, which saves the writer's turn
(12 us of a call's 150); what the socket does not take of it is the writer's, before everything
else. Many small ones are better joined: each write of its own wakes their reader (11 us a call).

Back-pressure: what waits is bounded in bytes. Request tasks wait for room (`put`); the reader,
which must never wait on its caller, uses `put_at_once`, and a caller that lets even that grow
beyond its own bound is not reading and is cut off, as is one that takes no byte for too long.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from vastar_client.wire import (
    Connection,
    ErrorClass,
    ExecuteResponse,
    FrameTooLongError,
    LocalProtocolError,
    Message,
    StreamChunk,
    StreamEnd,
)
from vastar_client.wire.codec import buffers_bytes, payload_bytes
from vastar_client.wire.messages import Buffer
from vastar_runtime.identity.guests import Guest
from vastar_runtime.logs import get_logger
from vastar_runtime.outcomes import too_large
from vastar_runtime.transport.channel import Channel
from vastar_runtime.waiters import Waiters

__all__ = ["CallerNotReadingError", "Outbox"]

_BATCH_BYTES: Final = 256 * 1024
"""One write takes up to about so much: more would only hold memory back from its senders."""
_LARGE_BYTES: Final = 16 * 1024
"""Written by itself: joining it with others would save little of what it takes anyway."""
_MESSAGE_OVERHEAD_BYTES: Final = 512
"""What a queued message weighs beside its payload: as measured, of a chunk of one byte."""
_MAX_UNASKED_MESSAGES: Final = 8192
"""Messages of the reader's own (faults, health) that may wait: a caller that sends so many and
reads none means harm."""

_log = get_logger(__name__)


class CallerNotReadingError(Exception):
    """The caller sends, but does not read what it is answered."""


class Outbox:
    """What is to be sent on one connection.

    Args:
        max_queued_bytes: above this `put` waits.
        stall_timeout_s: the caller is cut off when it takes no byte for so long.
        guest: for whom what waits is held.
    """

    __slots__ = (
        "_channel",
        "_connection",
        "_empty",
        "_failure",
        "_guest",
        "_max_queued_bytes",
        "_queue",
        "_queued_bytes",
        "_rest",
        "_rest_bytes",
        "_room",
        "_stall_timeout_s",
        "_unasked_messages",
        "_wake",
        "_writing",
    )

    def __init__(
        self,
        channel: Channel,
        connection: Connection,
        *,
        max_queued_bytes: int,
        stall_timeout_s: float,
        guest: Guest | None = None,
    ) -> None:
        self._channel = channel
        self._connection = connection
        self._max_queued_bytes = max_queued_bytes
        self._stall_timeout_s = stall_timeout_s
        self._guest = guest or Guest()
        # Each with its weight, and whether its sender could not wait.
        self._queue: deque[tuple[Message, int, bool]] = deque()
        # Of a frame that was tried, and its weight: the writer's first business.
        self._rest: Sequence[Buffer] = ()
        self._rest_bytes = 0
        self._failure: trio.BrokenResourceError | trio.ClosedResourceError | None = None
        self._unasked_messages = 0
        self._queued_bytes = 0
        self._writing = False
        self._wake: trio.Event | None = None
        self._room = Waiters()
        self._empty = Waiters()

    @property
    def is_empty(self) -> bool:
        """Whether everything put was handed to the operating system."""
        return not self._queue and not self._writing

    async def put(self, message: Message, *, is_alone: bool = False) -> None:
        """Queue `message`, when there is room for it.

        Args:
            message: what to send.
            is_alone: no other is about to come: send it at once, where that goes.
        """
        weight_bytes = _weight_bytes(message)
        if self._queued_bytes > self._max_queued_bytes:
            self._guest.held_bytes += weight_bytes
            try:
                while self._queued_bytes > self._max_queued_bytes:
                    await self._room.wait()
            finally:
                self._guest.held_bytes -= weight_bytes
        if is_alone or weight_bytes >= _LARGE_BYTES:
            self._send(message, weight_bytes, is_unasked=False)
        else:
            self._put(message, weight_bytes, is_unasked=False)

    def _send(self, message: Message, weight_bytes: int, *, is_unasked: bool) -> None:
        """Try `message` where nothing is before it, else queue it."""
        if self._wake is None or self._writing or self._queue:
            self._put(message, weight_bytes, is_unasked=is_unasked)
            return
        buffers = self._encode(message)
        try:
            rest = self._channel.try_send(buffers)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._failure = error  # it is the writer's to end the connection
            rest = buffers
        if rest is None:
            rest = buffers
        if rest:
            self._rest, self._rest_bytes = rest, buffers_bytes(rest)
            self._count(self._rest_bytes)
            self._writing = True
            self._wake.set()

    def put_at_once(self, message: Message) -> None:
        """As `put`, without waiting.

        Raises:
            CallerNotReadingError: far too much is waiting already.
        """
        if self._unasked_messages > _MAX_UNASKED_MESSAGES:
            raise CallerNotReadingError(f"{len(self._queue)} answers wait to be read")
        self._send(message, _weight_bytes(message), is_unasked=True)

    def _put(self, message: Message, weight_bytes: int, *, is_unasked: bool) -> None:
        self._unasked_messages += is_unasked
        self._queue.append((message, weight_bytes, is_unasked))
        self._count(weight_bytes)
        if self._wake is not None:
            self._wake.set()

    def _count(self, weight_bytes: int) -> None:
        """So much more waits, or less."""
        self._queued_bytes += weight_bytes
        self._guest.held_bytes += weight_bytes

    async def wait_empty(self) -> None:
        """Return when everything put was handed to the operating system."""
        while not self.is_empty:
            await self._empty.wait()

    def discard(self) -> None:
        """Forget what waits, once the writer has ended: nobody will take it any more."""
        self._queue.clear()
        self._rest = ()
        self._count(-self._queued_bytes)
        # A writer that was cut off leaves this set; a drain waits for what it was sending.
        self._writing = False
        self._empty.wake_all()

    async def run(self) -> None:
        """Send what is put, for ever.

        Raises:
            ChannelStalled: the caller takes nothing.
            trio.BrokenResourceError: the connection failed.
        """
        while True:
            if not self._queue and not self._writing:
                self._empty.wake_all()
                self._wake = trio.Event()
                await self._wake.wait()
                self._wake = None
            self._writing = True
            try:
                weight_bytes, buffers = self._next_batch()
                await self._channel.send_buffers(buffers, stall_timeout_s=self._stall_timeout_s)
            except BaseException:
                # Also when cancelled: half a frame may be on the wire.
                self._connection.send_failed()
                raise
            del buffers  # an idle connection must not keep its last answer in memory
            self._writing = False
            self._count(-weight_bytes)
            if self._queued_bytes <= self._max_queued_bytes:
                self._room.wake_all()

    def _next_batch(self) -> tuple[int, Sequence[Buffer]]:
        """What is to be written next, up to about one batch, and its weight."""
        if self._failure is not None:
            raise self._failure
        if self._rest:
            weight_bytes, buffers = self._rest_bytes, self._rest
            self._rest = ()
            return weight_bytes, buffers
        return self._encode_batch()

    def _encode_batch(self) -> tuple[int, list[Buffer]]:
        """Frames of the first messages in the queue, up to about one batch, and their weight."""
        weight_bytes = 0
        buffers: list[Buffer] = []
        while self._queue and weight_bytes < _BATCH_BYTES:
            message, message_bytes, is_unasked = self._queue.popleft()
            self._unasked_messages -= is_unasked
            weight_bytes += message_bytes
            buffers += self._encode(message)
        return weight_bytes, buffers

    def _encode(self, message: Message) -> Sequence[Buffer]:
        try:
            return self._connection.send(message)
        except FrameTooLongError as error:
            text = too_large(error.limit_bytes).message
            # The call's own line said SUCCESS: its length is known only here.
            _log.warning("answer too long", request_id=getattr(message, "request_id", 0))
        except LocalProtocolError:
            _log.exception("internal error", message=message.TYPE.name)
            text = "internal error"
        if not isinstance(message, ExecuteResponse | StreamEnd):
            return ()  # nobody waits for it
        substitute = type(message)(
            request_id=message.request_id,
            error_class=ErrorClass.PERMANENT,
            error_message=text,
            duration_us=message.duration_us,
            disposition=message.disposition,
            attempts=message.attempts,
        )
        if isinstance(message, StreamEnd):
            substitute = msgspec.structs.replace(substitute, total_bytes=message.total_bytes)
        return self._connection.send(substitute)


def _weight_bytes(message: Message) -> int:
    """About what `message` holds in memory while it waits."""
    payload: Buffer | Sequence[Buffer] | None = None
    if isinstance(message, ExecuteResponse):
        payload = message.payload
    elif isinstance(message, StreamChunk):
        payload = message.data
    return _MESSAGE_OVERHEAD_BYTES + (0 if payload is None else payload_bytes(payload))
