"""All streams and bodies of one connection: opened and closed with their calls, fed by its reader.

Shape: two tables by id, the credit that they share, and one task that speaks for those that are
silent. Nothing here waits on a caller: what is answered to the reader is put at once.
"""

import math
from contextlib import suppress
from functools import partial

import trio

from vastar_client.wire import CreditUpdate, KeepAlive, RequestChunk
from vastar_client.wire.codec import one_buffer
from vastar_client.wire.limits import INITIAL_CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL_S
from vastar_client.wire.windows import ReceiveWindow
from vastar_runtime.calls import Call
from vastar_runtime.outbox import CallerNotReadingError, Outbox
from vastar_runtime.outcomes import FailureKind
from vastar_runtime.streams import AnswerStream, ConnectionCredit, Upload

__all__ = ["SessionStreams"]

_ANY_ID = 1
"""Credit of the connection rides on a frame of a stream, as one without an id is for connections
that speak of requests; it says nothing of that stream, which need not exist."""


class SessionStreams:
    """What the streams of a connection share.

    Args:
        outbox: of the connection.
    """

    __slots__ = (
        "_answer_credit",
        "_is_keeping_alive",
        "_outbox",
        "_streamed",
        "_upload_window",
        "_uploading",
    )

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._answer_credit = ConnectionCredit()
        self._upload_window = ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._streamed: dict[int, Call] = {}
        self._uploading: dict[int, Call] = {}
        self._is_keeping_alive = False

    def __bool__(self) -> bool:
        """Whether answers are streamed."""
        return bool(self._streamed)

    def open(self, call: Call) -> bool:
        """Give `call` what it streams through, if it does.

        Returns:
            Whether `keep_alive` has to be started.
        """
        request_id = call.request.request_id
        if call.request.body_follows:
            call.upload = Upload(request_id, self._grant)
            self._uploading[request_id] = call
        if not call.request.stream:
            return False
        call.stream = AnswerStream(request_id, self._answer_credit, self._outbox.put)
        self._streamed[request_id] = call
        was_kept_alive, self._is_keeping_alive = self._is_keeping_alive, True
        return not was_kept_alive

    def close(self, call: Call) -> None:
        """Its final frame is on its way: credit and chunks that still come are for nobody."""
        if call.stream is not None:
            del self._streamed[call.request.request_id]
        if call.upload is not None:
            del self._uploading[call.request.request_id]

    async def keep_alive(self) -> None:
        """Say a word on each stream that has been silent for long, while there are streams."""
        try:
            while self._streamed:
                now_s, first_s = trio.current_time(), math.inf
                for request_id, call in self._streamed.items():
                    stream = call.stream
                    assert stream is not None
                    if now_s >= stream.last_sent_at_s + KEEP_ALIVE_INTERVAL_S:
                        stream.last_sent_at_s = now_s
                        self._outbox.put_at_once(KeepAlive(request_id))
                    first_s = min(first_s, stream.last_sent_at_s)
                await trio.sleep_until(first_s + KEEP_ALIVE_INTERVAL_S)
        except CallerNotReadingError:
            return  # the writer cuts it off, as it takes no byte
        finally:
            self._is_keeping_alive = False

    # --- what the reader brings ---------------------------------------------------------------

    def receive_chunk(self, chunk: RequestChunk) -> None:
        """Hand a piece of a request body to its call; one of no call is discarded.

        The connection's credit comes back at once: it is for what is on its way, and a call that
        takes nothing shall not stop the others.

        Raises:
            RemoteProtocolError: it is more than was granted; the connection is to be closed.
            CallerNotReadingError: far too much waits to be read.
        """
        data_bytes = len(one_buffer(chunk.data))
        self._upload_window.received(data_bytes)
        grant_bytes = self._upload_window.consumed(data_bytes)
        if grant_bytes:
            request_id = chunk.request_id or _ANY_ID
            self._outbox.put_at_once(
                CreditUpdate(connection_bytes=grant_bytes, request_id=request_id)
            )
        call = self._uploading.get(chunk.request_id)
        if call is not None and call.upload is not None:
            call.upload.put(chunk)

    def take_credit(self, frame: CreditUpdate) -> None:
        """The caller takes more of answers; credit for a stream that has ended is ignored.

        Raises:
            RemoteProtocolError: a window overflows; the connection is to be closed.
        """
        if frame.connection_bytes:
            self._answer_credit.grant(frame.connection_bytes)
        call = self._streamed.get(frame.request_id)
        if call is not None and call.stream is not None and frame.credit_delta:
            call.stream.grant(frame.credit_delta)

    def caller_sends_no_more(self) -> None:
        """Neither bodies nor credit: end what needs more of them, as soon as it does."""
        for call in self._uploading.values():
            upload = call.upload
            if upload is not None and not upload.has_ended:
                upload.abort("the caller ended the connection before the end of the request body")
        for call in self._streamed.values():
            if call.stream is not None:
                call.stream.grants_have_ended(partial(_give_up, call))

    def _grant(self, credit: CreditUpdate) -> None:
        """For a call in the middle of its work; the reader, or the writer, meets the same."""
        with suppress(CallerNotReadingError):
            self._outbox.put_at_once(credit)


def _give_up(call: Call) -> None:
    words = "the caller sends no more, so it can grant no more of the answer"
    call.cancel(FailureKind.CANCELLED, words)
