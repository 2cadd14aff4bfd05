"""A caller's connection: a nursery whose child tasks own the calls.

Tasks: the reader (this session's own task), the outbox's writer, one task per call, and, once
the reader no longer reads, a watch for the caller's full close.

The reader never waits on a call. On a connection that has not opted in it stops reading while
the limit of calls in flight is reached, which is back-pressure; on an opted-in one it must go on
(cancels and the end of the stream have to be seen), so surplus calls are refused.

The end of the caller's stream is not the caller's end: a half-closed connection still gets its
answers. A full close (Unix: EPOLLHUP; TCP: once a write fails) cancels every call at once.
"""

from contextlib import suppress
from typing import Final

import attrs
import trio

from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Authenticate,
    Cancel,
    Connection,
    CreditUpdate,
    Disposition,
    ExecuteRequest,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
    Message,
    Phase,
    RemoteProtocolError,
    RequestChunk,
    Role,
    Signal,
)
from vastar_client.wire.codec import payload_bytes
from vastar_runtime._version import __version__
from vastar_runtime.audit import audit_limit
from vastar_runtime.call_tasks import CallTasks
from vastar_runtime.calls import Call, Caller
from vastar_runtime.dispatch import Dispatcher
from vastar_runtime.identity.guests import Guest
from vastar_runtime.identity.visas import Visa
from vastar_runtime.logs import get_logger
from vastar_runtime.outbox import CallerNotReadingError, Outbox
from vastar_runtime.outcomes import FailureKind
from vastar_runtime.patience import FrameGivenUp, Idle, Patience
from vastar_runtime.refusing import why_not
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.session_streams import SessionStreams
from vastar_runtime.transport.channel import RECEIVE_BYTES, Channel
from vastar_runtime.transport.errors import ChannelStalled
from vastar_runtime.waiters import Waiters

__all__ = ["Session", "SessionLimits"]

_LINGER_S: Final = 2.0
"""After a closing fault the caller gets so long to read why, before the socket is closed."""

_MAX_EVENTS_IN_A_ROW: Final = 4
"""Frames handled before others get their turn. Few, so that a caller that sends thousands a second
begins its calls no faster than the event loop turns: where the processor is used up, its own calls
wait in its socket and not everybody's in long turns. Measured on a busy machine, 128 and 16 against
4: the p50 of a quiet tenant beside it 580 and 570 against 170 ms; no less throughput 64 deep."""

_log = get_logger(__name__)


@attrs.frozen
class SessionLimits:
    """What one connection may take, from the configuration's `[server]` table."""

    max_in_flight: int
    max_request_frame_bytes: int
    max_answer_frame_bytes: int
    unfinished_frame_timeout_s: float
    stalled_caller_timeout_s: float
    max_queued_answer_bytes: int
    idle_timeout_s: float = 0.0


class Session:
    """One connection of a caller, from its first byte to its last."""

    def __init__(  # noqa: PLR0917 - each is another thing
        self,
        channel: Channel,
        caller: Caller,
        dispatcher: Dispatcher,
        limits: SessionLimits,
        state: RuntimeState,
        visa: Visa | None = None,
        guest: Guest | None = None,
    ) -> None:
        self._channel = channel
        self._caller = caller
        self._dispatcher = dispatcher
        self._limits = limits
        self._state = state
        self._visa = visa
        self._guest = guest or Guest()
        self._patience = Patience(
            limits.unfinished_frame_timeout_s, limits.idle_timeout_s, visa, self._guest
        )
        self._connection = Connection(
            Role.RUNTIME,
            max_received_frame_bytes=limits.max_request_frame_bytes,
            max_sent_frame_bytes=limits.max_answer_frame_bytes,
        )
        self._outbox = Outbox(
            channel,
            self._connection,
            max_queued_bytes=limits.max_queued_answer_bytes,
            stall_timeout_s=limits.stalled_caller_timeout_s,
            guest=self._guest,
        )
        # Two unary calls of one connection may share an id: each id has its calls.
        self._calls: dict[int, list[Call]] = {}
        self._streams = SessionStreams(self._outbox)
        self._in_flight = 0
        self._call_ended = Waiters()
        self._watching = False
        self._nursery: trio.Nursery | None = None
        self._tasks: CallTasks | None = None

    async def run(self) -> None:
        """Serve the connection until it ends. Raises nothing but cancellation and bugs."""
        self._state.connections += 1
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._tasks = CallTasks(nursery, self._serve, self._state.resting)
                nursery.start_soon(self._write)
                if await self._read():
                    self._streams.caller_sends_no_more()
                    await self._finish()
                nursery.cancel_scope.cancel()
        finally:
            self._state.connections -= 1
            self._channel.abort()
            # Answers that nobody took may be large, and what points at itself waits for the
            # garbage collector: let go of them now.
            self._nursery = self._tasks = None
            self._outbox.discard()
            self._patience.frame_ended()

    # --- the reader ---------------------------------------------------------------------------

    async def _read(self) -> bool:
        """Handle what the caller sends; whether its calls still want their answers."""
        events_in_a_row = received_bytes = 0
        try:
            while True:
                events_in_a_row += 1
                if events_in_a_row >= _MAX_EVENTS_IN_A_ROW:
                    # A chunk may hold thousands of small frames: neither the other callers nor
                    # this one's own answers shall wait for all of them.
                    events_in_a_row = received_bytes = 0
                    await trio.lowlevel.checkpoint()
                try:
                    event = self._connection.next_event()
                    if event is NEED_DATA:
                        received_bytes += await self._patience.receive(
                            self._channel, self._connection, self._is_busy
                        )
                        if received_bytes < RECEIVE_BYTES:
                            events_in_a_row = 0  # it waits each time; behind much it need not
                        continue
                    if self._patience.frame_began_s is not None:
                        self._patience.frame_ended()
                    if event is END_OF_STREAM:
                        return True
                    if isinstance(event, ExecuteRequest):
                        await self._begin(event)
                    else:
                        self._handle(event)
                except RemoteProtocolError as error:
                    self._refuse_frame(error)
                    if error.closes:
                        return True
        except Idle:
            _log.info("idle caller cut off", connection=self._caller.connection_id)
            return False
        except (trio.BrokenResourceError, CallerNotReadingError) as error:
            _log.info("caller cut off", connection=self._caller.connection_id, reason=str(error))
            return False

    def _is_busy(self) -> bool:
        return self._in_flight > 0

    def _refuse_frame(self, error: RemoteProtocolError) -> None:
        if isinstance(error, FrameGivenUp):
            audit_limit(error.rule, self._caller, "", reason=str(error))
        self._outbox.put_at_once(
            ExecuteResponse(
                request_id=error.request_id,
                error_class=error.error_class,
                error_message=str(error),
                disposition=Disposition.NOT_SENT,
            )
        )

    # --- calls --------------------------------------------------------------------------------

    async def _begin(self, request: ExecuteRequest) -> None:
        """Start the call, or refuse it."""
        if self._in_flight >= self._limits.max_in_flight and not self._connection.opted_in:
            self._watch_hangup()
            while self._in_flight >= self._limits.max_in_flight:
                await self._call_ended.wait()
        failure = why_not(
            request,
            self._state,
            self._visa,
            self._guest,
            self._calls,
            self._in_flight,
            self._limits.max_in_flight,
        )
        if failure is None:
            call = self._dispatcher.accept(request, self._caller)
            self._calls.setdefault(request.request_id, []).append(call)
            self._in_flight += 1
            self._state.call_begins()
            assert self._nursery is not None
            assert self._tasks is not None
            if (request.stream or request.body_follows) and self._streams.open(call):
                self._nursery.start_soon(self._streams.keep_alive)
            self._tasks.begin(call)
        else:
            self._outbox.put_at_once(self._dispatcher.refuse(request, failure))
            if failure.kind is FailureKind.OVERLOADED:
                audit_limit(
                    failure.refused_by or "",
                    self._caller,
                    request.tenant_id,
                    workspace=request.workspace_id,
                    trace_id=request.trace_id,
                )

    async def _serve(self, call: Call) -> None:
        """The life of one call. No exception leaves it but cancellation."""
        payload = call.request.payload
        held_bytes = 0 if payload is None else payload_bytes(payload)
        self._guest.held_bytes += held_bytes
        call.holder = self._guest
        try:
            try:
                answer = await self._dispatcher.serve(call)
            finally:
                call.hands_on()
                self._streams.close(call)
            await self._outbox.put(answer, is_alone=self._in_flight == 1)
        finally:
            self._guest.held_bytes -= held_bytes
            calls = self._calls[call.request.request_id]
            calls.remove(call)
            if not calls:
                del self._calls[call.request.request_id]
            self._in_flight -= 1
            self._state.call_ends()
            self._call_ended.wake_all()

    # --- other frames -------------------------------------------------------------------------

    def _handle(self, frame: Message | Signal) -> None:
        """Do what a frame that begins no call asks."""
        match frame:
            case RequestChunk():
                self._streams.receive_chunk(frame)
            case Cancel():
                self._cancel(frame)
            case HealthCheck():
                self._tell_health()
            case Authenticate():
                self._authenticate(frame)
            case CreditUpdate():
                self._credit_update(frame)

    def _cancel(self, frame: Cancel) -> None:
        for call in self._calls.get(frame.request_id, ()):
            call.cancel(FailureKind.CANCELLED)

    def _authenticate(self, frame: Authenticate) -> None:
        """Take a token for the rest of the connection; one that is no good is told."""
        if self._visa is None or self._visa.show(frame.token):
            self._tell_health()
            return
        self._outbox.put_at_once(HealthResponse(message="not allowed: this token is not known"))
        if self._visa.is_guessing:
            raise RemoteProtocolError("too many tokens that are not known", closes=True)

    def _tell_health(self) -> None:
        draining = self._state.draining
        self._outbox.put_at_once(
            HealthResponse(
                healthy=not draining,
                message=f"vastar-runtime {__version__}" + (": draining" if draining else ""),
                active_requests=self._state.calls_in_flight,
                available_credits=self._available_credits(),
            )
        )

    def _credit_update(self, frame: CreditUpdate) -> None:
        """Take credit for answers; tell what the connection may have in flight where it asks."""
        self._streams.take_credit(frame)
        if not (frame.request_id or frame.connection_bytes):
            self._outbox.put_at_once(CreditUpdate(total_credits=self._available_credits()))

    def _available_credits(self) -> int:
        return max(0, self._limits.max_in_flight - self._in_flight)

    def go_away(self, drain_s: float, stream_drain_s: float) -> None:
        """Tell a caller that speaks credits that the runtime is leaving, and when."""
        if self._connection.phase is not Phase.CREDITED:
            return
        if self._streams:
            drain_s = max(drain_s, stream_drain_s)
        with suppress(CallerNotReadingError):
            self._outbox.put_at_once(Goaway(reason="draining", drain_ms=int(drain_s * 1000)))

    # --- the end ------------------------------------------------------------------------------

    async def _write(self) -> None:
        """The outbox's writer; when it fails, the connection is over."""
        assert self._nursery is not None
        try:
            await self._outbox.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            is_stalled = isinstance(error, ChannelStalled)
            reason = "it does not read its answers" if is_stalled else "gone"
            tell = _log.info if is_stalled else _log.debug  # whoever only probes may not wait
            tell("caller cut off", connection=self._caller.connection_id, reason=reason)
            self._nursery.cancel_scope.cancel()

    def _watch_hangup(self) -> None:
        """From now on nobody reads: have the caller's full close noticed all the same."""
        if not self._watching:
            self._watching = True
            assert self._nursery is not None
            self._nursery.start_soon(self._cancel_on_hangup)

    async def _cancel_on_hangup(self) -> None:
        nursery = self._nursery
        assert nursery is not None
        try:
            await self._channel.wait_hangup()
        except OSError as error:
            # Out of descriptors: the caller's end is then seen when its answers are written.
            _log.warning("cannot watch a caller", reason=error.strerror)
            return
        nursery.cancel_scope.cancel()

    async def _finish(self) -> None:
        """The caller sends no more: let its calls end and their answers leave."""
        if self._in_flight or not self._outbox.is_empty:
            self._watch_hangup()
        while self._in_flight:
            await self._call_ended.wait()
        await self._outbox.wait_empty()
        with trio.move_on_after(_LINGER_S):
            # Closing with unread bytes resets the connection, and the caller might never see
            # the last answers: end our half, and read until it has ended its own.
            try:
                await self._channel.send_eof()
                while await self._channel.receive_some():
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def cut_calls(self, *, streams: bool) -> int:
        """End the calls, or the streams: their time is over; how many there were."""
        cut = 0
        for calls in self._calls.values():
            for call in calls:
                if (call.stream is not None) is streams:
                    call.cancel(FailureKind.DRAINING)
                    cut += 1
        return cut

    async def wait_quiet(self) -> None:
        """Return when no answer of this connection waits to be sent."""
        await self._outbox.wait_empty()
