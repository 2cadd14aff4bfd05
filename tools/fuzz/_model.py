"""The judge of one connection: bytes sent against bytes received.

The state table of the protocol reads what was sent as a runtime has to, so the judge knows which
answers are owed. Order between calls is free, ids and counts are not. Where two readings are
possible (a grant may meet its stream or come too late) both are allowed: a judge must never
accuse a runtime that is right.
"""

from collections import defaultdict, deque
from typing import Final

from tools.fuzz._calls import Call, Hits, call_of
from tools.fuzz._circuits import Circuits
from tools.fuzz._faults import Faults
from tools.fuzz._violation import Violation
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Authenticate,
    Cancel,
    Connection,
    CreditUpdate,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
    KeepAlive,
    MessageType,
    RemoteProtocolError,
    RequestChunk,
    Role,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.codec import decode_message, one_buffer
from vastar_client.wire.framing import FrameDecoder
from vastar_client.wire.limits import (
    INITIAL_CONNECTION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
    MAX_ANSWER_FRAME_BYTES,
    MAX_WINDOW_BYTES,
)

__all__ = ["ConnectionModel"]

_FAULT_WORDS: Final = "Invalid FlatBuffers message"
_OF_CALLERS: Final = (ExecuteRequest, HealthCheck, Cancel, RequestChunk, Authenticate)


class ConnectionModel:
    """What is owed on one connection.

    Args:
        hits: our upstream, where calls may ask it.
        is_base: the runtime speaks the published protocol and nothing else.
        circuits: what is known of them from all connections.

    Attributes:
        owed: calls without their final frame, in the order of their requests.
        ended: (call, final frame) of the others.
        must_close: why the runtime has to close the connection, if it has.
        may_close: why it may.
        has_closed: it did.
        has_ended: nothing more is sent on it.
        health: answers to health checks, as they come.
    """

    def __init__(
        self, hits: Hits | None, *, is_base: bool, circuits: Circuits | None = None
    ) -> None:
        self._hits = hits
        self._circuits = circuits
        self._is_base = is_base
        self._sends = Connection(Role.RUNTIME)
        self._receives = FrameDecoder(MAX_ANSWER_FRAME_BYTES)
        self.owed: list[Call] = []
        self.ended: list[tuple[Call, ExecuteResponse | StreamEnd]] = []
        self._faults = Faults()
        self.owed_health = 0
        self._owed_credit = 0
        self._granted_bytes = INITIAL_CONNECTION_WINDOW_BYTES
        self._received_bytes = 0
        self._uploaded_bytes = 0
        self._has_streamed = False
        self._uploads: defaultdict[int, int] = defaultdict(int)
        self.must_close: str | None = None
        self.may_close: str | None = None
        self.has_closed = False
        self.has_ended = False
        self.health: deque[HealthResponse] = deque()

    # --- what was sent --------------------------------------------------------------------------

    @property
    def in_frame(self) -> bool:
        """A frame was begun and is not whole: what is sent next belongs to it."""
        return self._sends.in_frame

    @property
    def opted_in(self) -> bool:
        """The runtime may send what is beyond the published protocol."""
        return self._sends.opted_in

    @property
    def owes_nothing(self) -> bool:
        """Every request and fault has its answer."""
        return not (self.owed or self._faults or self.owed_health or self._owed_credit)

    @property
    def owes_nothing_certain(self) -> bool:
        """What is still owed may take as long as it likes."""
        if self.must_close is not None:
            # It reads no more, but lets end what it has begun: an upstream that says nothing
            # holds the connection for as long as its calls have.
            waits = self._faults.is_told and not all(call.ends_by_itself for call in self.owed)
            return self.has_closed or waits
        if self.may_close is not None and not self.has_ended:
            return True  # perhaps it reads nothing any more
        streams_bytes = sum(
            call.target.size for call in self.owed if call.target and call.request.stream
        )
        is_held_up = streams_bytes > self._granted_bytes - self._received_bytes
        return not (
            self._faults
            or self.owed_health
            or self._owed_credit
            or any(c.ends_by_itself and not (is_held_up and c.request.stream) for c in self.owed)
        )

    def sent(self, data: bytes) -> None:
        """These bytes are about to be sent."""
        if self.must_close is None and not self.has_ended:
            self._sends.receive_data(data)
            self._understand()

    def sent_eof(self) -> None:
        """Our half of the connection is about to end."""
        if self.must_close is None and not self.has_ended:
            self.has_ended = True
            self._sends.receive_data(b"")
            self._understand()
            self._gives_up("its caller sends no more")

    def _gives_up(self, why: str) -> None:
        """What needs more of us from here on, credit or a body, may be given up."""
        self.may_close = why
        for call in self.owed:
            call.may_be_refused |= call.request.stream or call.request.body_follows

    def _may_close(self, why: str) -> None:
        """An offence, if the runtime takes it for one: then it reads nothing behind it."""
        self._gives_up(why)
        self._faults.is_doubtful = True

    def _must_close(self, why: str) -> None:
        self._gives_up(why)
        self.must_close = why

    def _understand(self) -> None:
        while self.must_close is None:
            try:
                event = self._sends.next_event()
            except RemoteProtocolError as error:
                words = self._faults.owe(error.request_id, error)
                if error.closes:
                    self._must_close(words)
                    return
                continue
            if event is NEED_DATA or event is END_OF_STREAM:
                return
            self._expect(event)

    def _expect(self, event: object) -> None:
        match event:
            case ExecuteRequest():
                call = call_of(event, self._hits, self._circuits)
                same = [c for c in self.owed if c.request.request_id == event.request_id]
                call.may_be_refused = (event.stream or event.body_follows) and bool(same)
                for other in (call, *same) if same else ():
                    other.shares_id = True
                self._uploads.pop(event.request_id, None)
                self._has_streamed |= event.stream
                self.owed.append(call)
            case HealthCheck() | Authenticate():
                self.owed_health += 1
            case Cancel():
                for call in self.owed:
                    call.was_cancelled |= call.request.request_id == event.request_id
            case CreditUpdate():
                self._grant(event)
            case RequestChunk():
                self._upload(event)

    def _grant(self, credit: CreditUpdate) -> None:
        if not (credit.request_id or credit.connection_bytes):
            self._owed_credit += 1
            return
        self._granted_bytes += credit.connection_bytes
        if self._granted_bytes > MAX_WINDOW_BYTES:
            if not self._has_streamed:
                self._faults.owe(0, "overflow")
                self._must_close("the connection's window overflows")
                return
            self._may_close("the connection's window may overflow")
        for call in self.owed:
            request = call.request
            if request.request_id == credit.request_id and request.stream:
                call.granted_bytes += credit.credit_delta
                if call.granted_bytes > MAX_WINDOW_BYTES:
                    self._may_close("a stream's window may overflow")

    def _upload(self, chunk: RequestChunk) -> None:
        size = len(one_buffer(chunk.data))
        self._uploaded_bytes += size
        self._uploads[chunk.request_id] += size
        for call in self.owed:
            if call.request.request_id == chunk.request_id and not call.body_has_ended:
                call.body_bytes += size
                call.body_has_ended |= chunk.last
        if size > INITIAL_CONNECTION_WINDOW_BYTES:
            self._faults.owe(0, "chunk")
            self._must_close("a chunk is larger than the window of the connection")
        elif self._uploads[chunk.request_id] > INITIAL_STREAM_WINDOW_BYTES:
            self._may_close("more of a body than was granted")
        elif self._uploaded_bytes > INITIAL_CONNECTION_WINDOW_BYTES:
            self._may_close("more of bodies than was granted")

    # --- what was received ----------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """These bytes came.

        Raises:
            Violation: they may not.
        """
        self._receives.receive_data(data)
        while True:
            try:
                frame = self._receives.next_frame()
                if frame is None:
                    return
                event = decode_message(MessageType(frame[0]), frame[1])
            except (RemoteProtocolError, ValueError) as error:
                raise Violation("frames of answers are sound", str(error)) from None
            if isinstance(event, _OF_CALLERS):
                raise Violation("frames of answers are sound", f"only a caller sends {event}")
            if not self.opted_in and not isinstance(event, ExecuteResponse):
                raise Violation("nothing unsolicited", f"{event} on a connection that never asked")
            self._judge(event)

    def closed(self, *, is_reset: bool) -> None:
        """The runtime ended the connection.

        Raises:
            Violation: it may not, or left something behind.
        """
        self.has_closed = True
        if self._receives.in_frame:
            raise Violation("whole frames", "the runtime closed in the middle of a frame")
        if self.must_close is None and self.may_close is None:
            raise Violation("connections live", f"it closed while it owed {self._debts()}")
        had_to = self.must_close is not None or self._faults.is_doubtful
        if had_to and self._faults.is_reason_due and not is_reset:
            raise Violation("a close has a reason", f"it closed without a word: {self.may_close}")
        if not had_to and self.has_ended and not self.owes_nothing and not is_reset:
            raise Violation("half-closed connections get their answers", f"owed: {self._debts()}")

    def _debts(self) -> str:
        calls = ", ".join(str(call.request) for call in self.owed[:3]) or "no call"
        return f"{calls}; {len(self._faults)} faults, {self.owed_health} healths"

    def late(self) -> Violation:
        """What to say when something certain did not come in time."""
        if self.must_close is not None:
            return Violation("faults of framing close", f"still open although {self.must_close}")
        return Violation("every request is answered", f"nothing came; owed: {self._debts()}")

    def _judge(self, event: object) -> None:
        match event:
            case ExecuteResponse():
                self._final_or_fault(event)
            case StreamEnd():
                self._end(event)
            case StreamStart():
                self._stream(event.request_id, event).starts(event)
            case StreamChunk():
                size = len(one_buffer(event.data))
                self._received_bytes += size
                if self._received_bytes > self._granted_bytes:
                    raise Violation(
                        "the window of a connection",
                        f"{self._received_bytes} bytes where {self._granted_bytes} were granted",
                    )
                self._stream(event.request_id, event).chunk(event)
            case KeepAlive():
                self._stream(event.request_id, event)
            case HealthResponse():
                if not self.owed_health:
                    raise Violation("no answer is invented", f"{event} without a health check")
                self.owed_health -= 1
                self.health.append(event)
            case CreditUpdate():
                self._credit(event)
            case Goaway():
                pass

    def _credit(self, credit: CreditUpdate) -> None:
        if credit.request_id or credit.connection_bytes:
            if not self._uploaded_bytes:
                raise Violation("no answer is invented", f"{credit}, but no body was sent")
            for call in self.owed:
                if call.request.request_id == credit.request_id:
                    call.body_granted_bytes += credit.credit_delta
        elif self._owed_credit:
            self._owed_credit -= 1
        else:
            raise Violation("no answer is invented", f"{credit} without an update of ours")

    def _stream(self, request_id: int, event: object) -> Call:
        """The open stream with this id: one that has begun before one that has not."""
        streams = [c for c in self.owed if c.request.request_id == request_id and c.request.stream]
        if not streams:
            raise Violation("ids match", f"{event}, but no stream of this id is open")
        return next((call for call in streams if call.has_started), streams[0])

    def _end(self, event: StreamEnd) -> None:
        streams = [
            c for c in self.owed if c.request.request_id == event.request_id and c.request.stream
        ]
        refused = event.error_class is ErrorClass.INVALID_REQUEST
        if refused:
            streams.sort(key=lambda call: (call.has_started, not call.may_be_refused))
        else:
            streams.sort(key=lambda call: not call.has_started)
        if not streams:
            raise Violation("one final frame", f"{event}, but no stream of this id is open")
        self._finish(streams[0], event)

    def _final_or_fault(self, event: ExecuteResponse) -> None:
        calls = [
            c
            for c in self.owed
            if c.request.request_id == event.request_id and not c.request.stream
        ]
        # As published, the words tell a fault, which has the id 0 although its own could be read.
        is_fault = _FAULT_WORDS in (event.error_message or "")
        may_be_fault = is_fault or not (self._is_base and calls)
        has_call = bool(calls) and not (self._is_base and is_fault)
        if may_be_fault and self._faults.answered(event, has_call=has_call):
            return
        is_refusal = event.error_class is ErrorClass.INVALID_REQUEST and not event.request_id
        if is_refusal and not calls and self.may_close and not self.must_close:
            self._must_close(self.may_close)  # it took the offence that it may take
            return
        if not calls and self._is_base:
            # The published protocol has fewer fields to be wrong, and its readers are stricter in
            # some things and less in others: a spoiled buffer may be read otherwise than by us.
            if self._faults.read_otherwise():
                return
            calls = self.owed[:1] if is_refusal else []
            for call in calls:
                call.may_be_refused = True
        if not calls:
            raise Violation("one final frame", f"{event}, but no call of this id is open")
        self._finish(calls[0], event)

    def _finish(self, call: Call, event: ExecuteResponse | StreamEnd) -> None:
        call.ends(event, is_base=self._is_base)
        self.owed.remove(call)
        self.ended.append((call, event))

    def settled(self) -> None:
        """All is quiet: judge once more what was said of calls that have ended.

        Raises:
            Violation: it was not true.
        """
        if not self._is_base:
            for call, final in self.ended:
                call.settled(final)
