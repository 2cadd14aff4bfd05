"""From a request message to its answer: the only place that knows both wire and outcomes.

Shape: `accept` is synchronous and stamps the arrival (clock, deadline); `serve` runs the pipeline
and never raises anything but cancellation: a bug in a connector becomes a Permanent "internal
error" for that one call, with the traceback in the log. One line is logged for every call,
whatever ended it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs
import trio

from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    PayloadFormat,
    StreamEnd,
)
from vastar_runtime.audit import audit_limit
from vastar_runtime.call_log import CallLine, write_call
from vastar_runtime.calls import Call, Caller
from vastar_runtime.identity.visas import NOT_ALLOWED
from vastar_runtime.logs import call_context, get_logger
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply, Streamed
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.policy.deadline import Deadline
from vastar_runtime.usage import Usage

__all__ = ["ERROR_CLASSES", "Dispatcher"]

ERROR_CLASSES: Final[Mapping[FailureKind, ErrorClass]] = MappingProxyType(
    {
        FailureKind.INVALID_REQUEST: ErrorClass.INVALID_REQUEST,
        FailureKind.NOT_SUPPORTED: ErrorClass.PERMANENT,
        FailureKind.UPSTREAM: ErrorClass.TRANSIENT,
        FailureKind.UPSTREAM_PERMANENT: ErrorClass.PERMANENT,
        FailureKind.TIMEOUT: ErrorClass.TIMEOUT,
        FailureKind.RATE_LIMITED: ErrorClass.RATE_LIMITED,
        FailureKind.CIRCUIT_OPEN: ErrorClass.TRANSIENT,
        FailureKind.OVERLOADED: ErrorClass.TRANSIENT,
        FailureKind.DRAINING: ErrorClass.TRANSIENT,
        FailureKind.TOO_LARGE: ErrorClass.PERMANENT,
        FailureKind.CANCELLED: ErrorClass.PERMANENT,
        FailureKind.INTERNAL: ErrorClass.PERMANENT,
    }
)
"""How each kind of failure reads on the wire. The published SDKs retry Transient and Timeout."""

_ENDED_BY: Final[Mapping[FailureKind, str]] = MappingProxyType(
    {
        FailureKind.INVALID_REQUEST: "runtime",
        FailureKind.NOT_SUPPORTED: "runtime",
        FailureKind.UPSTREAM: "upstream",
        FailureKind.UPSTREAM_PERMANENT: "upstream",
        FailureKind.TIMEOUT: "upstream",
        FailureKind.RATE_LIMITED: "policy",
        FailureKind.CIRCUIT_OPEN: "policy",
        FailureKind.OVERLOADED: "policy",
        FailureKind.DRAINING: "runtime",
        FailureKind.TOO_LARGE: "runtime",
        FailureKind.CANCELLED: "caller",
        FailureKind.INTERNAL: "runtime",
    }
)
"""Who ended a call, for metrics; a timeout may also be the call's own deadline."""

_SUCCESS: Final = ErrorClass.SUCCESS.name
_COMPLETED: Final = Disposition.COMPLETED.name
_NOT_SENT: Final = Disposition.NOT_SENT

_log = get_logger(__name__)


@attrs.define(eq=False)
class Dispatcher:
    """Serves requests through a pipeline.

    Attributes:
        meters: where calls are counted.
        wall_clock_ms: milliseconds since the Unix epoch; an argument so that tests can turn it.
        default_timeout_s: for calls that name no limit of their own; may change under way.
        stream_timeout_s: the same for streams, from their first byte to their last, and for calls
            whose body follows: how long that takes is their caller's business.
        max_answer_bytes: longest answer frame, as the length prefix counts.
        usage: where they are counted for their tenants.
    """

    pipeline: Pipeline
    meters: Meters
    wall_clock_ms: Callable[[], float]
    default_timeout_s: float
    stream_timeout_s: float
    max_answer_bytes: int
    usage: Usage = attrs.field(factory=Usage)

    def accept(self, request: ExecuteRequest, caller: Caller) -> Call:
        """The call that `request` begins, now."""
        deadline = Deadline.arrive(
            trio.current_time(),
            self.wall_clock_ms(),
            request.deadline_at_ms,
            (
                self.stream_timeout_s
                if request.stream or request.body_follows
                else self.default_timeout_s
            ),
        )
        return Call(request, caller, deadline, self.max_answer_bytes)

    async def serve(self, call: Call) -> ExecuteResponse | StreamEnd:
        """The answer to `call`, or the end of its stream. Raises nothing but cancellation."""
        arrived_at_s = trio.current_time()
        request = call.request
        with call_context(
            trace_id=request.trace_id or "",
            tenant=request.tenant_id,
            workspace=request.workspace_id or "",
        ):
            outcome: Outcome | None = None
            used = self.usage.begins(call)
            try:
                outcome = await self._run(call)
            finally:
                duration_us = int((trio.current_time() - arrived_at_s) * 1_000_000)
                told = _class_and_disposition(call, outcome)
                _log_call(call, outcome, duration_us, *told)
                self._count(call, outcome, duration_us, *told)
                if isinstance(outcome, Failure) and outcome.refused_by is not None:
                    _audit_limit(call, outcome)
                was_refused = isinstance(outcome, Failure) and call.disposition is _NOT_SENT
                self.usage.ends(used, call, was_refused=was_refused)
        answer = _answer(call, outcome, duration_us)
        return answer if call.stream is None else _end_of(answer, call, outcome)

    def refuse(self, request: ExecuteRequest, failure: Failure) -> ExecuteResponse | StreamEnd:
        """The answer to a request that is not begun at all."""
        error_class = ERROR_CLASSES[failure.kind]
        if failure is not NOT_ALLOWED:  # nobody counts in the name of a tenant that is not theirs
            self.usage.refused(request.tenant_id, request.workspace_id)
        self.meters.call_ended(
            request.connector_name,
            error_class.name,
            Disposition.NOT_SENT.name,
            _ENDED_BY[failure.kind],
            duration_s=0.0,
            first_byte_s=None,
            attempts=0,
        )
        kind = StreamEnd if request.stream else ExecuteResponse
        return kind(
            request_id=request.request_id,
            error_class=error_class,
            error_message=failure.message,
            retry_after_ms=failure.retry_after_ms,
            refused_by=failure.refused_by,
            disposition=Disposition.NOT_SENT,
        )

    def _count(
        self,
        call: Call,
        outcome: Outcome | None,
        duration_us: int,
        error_class: str,
        disposition: str,
    ) -> None:
        first_byte_us = call.progress.first_byte_us
        self.meters.call_ended(
            call.request.connector_name,
            error_class,
            disposition,
            _ended_by(call, outcome),
            duration_s=duration_us / 1e6,
            first_byte_s=None if first_byte_us is None else first_byte_us / 1e6,
            attempts=call.attempts,
        )

    async def _run(self, call: Call) -> Outcome:
        try:
            return await self.pipeline.run(call)
        except Exception:  # noqa: BLE001 - a bug in a connector must end its own call only
            _log.exception("internal error", request_id=call.request.request_id)
            return Failure(FailureKind.INTERNAL, "internal error")
        except BaseExceptionGroup as group:
            # Cancellation together with a bug: the bug is told, the cancellation goes on.
            cancelled, bugs = group.split(trio.Cancelled)
            if bugs is not None:
                _log.error("internal error", request_id=call.request.request_id, exc_info=bugs)
            if cancelled is not None:
                raise cancelled from None
            return Failure(FailureKind.INTERNAL, "internal error")


def _ended_by(call: Call, outcome: Outcome | None) -> str:
    """Who ended a call, as metrics and the log name it."""
    if outcome is None:
        return "caller"
    if not isinstance(outcome, Failure):
        return "upstream" if call.origin else "runtime"
    if outcome.kind is FailureKind.TIMEOUT and call.deadline.has_passed(trio.current_time()):
        return "deadline"
    return _ENDED_BY[outcome.kind]


def _class_and_disposition(call: Call, outcome: Outcome | None) -> tuple[str, str]:
    """Their names; `outcome` None is a call whose caller went away."""
    if isinstance(outcome, Failure):
        return ERROR_CLASSES[outcome.kind].name, _disposition(call, outcome).name
    if outcome is None:
        return "GONE", call.disposition.name
    return _SUCCESS, _COMPLETED


def _end_of(answer: ExecuteResponse, call: Call, outcome: Outcome) -> StreamEnd:
    """What an answer says of its call, as the end of a stream."""
    assert call.stream is not None
    return StreamEnd(
        request_id=answer.request_id,
        error_class=answer.error_class,
        error_message=answer.error_message,
        duration_us=answer.duration_us,
        retry_after_ms=answer.retry_after_ms,
        disposition=answer.disposition,
        attempts=answer.attempts,
        trailers=outcome.trailers if isinstance(outcome, Streamed) else None,
        total_bytes=call.stream.total_bytes,
        refused_by=answer.refused_by,
        queued_us=answer.queued_us,
        backoff_us=answer.backoff_us,
    )


def _answer(call: Call, outcome: Outcome, duration_us: int) -> ExecuteResponse:
    if not isinstance(outcome, Failure):
        return ExecuteResponse(
            request_id=call.request.request_id,
            payload=outcome.payload if isinstance(outcome, Reply) else None,
            duration_us=duration_us,
            disposition=Disposition.COMPLETED,
            attempts=call.attempts,
            payload_format=(
                outcome.payload_format if isinstance(outcome, Reply) else PayloadFormat.JSON
            ),
            retry_after_ms=call.retry_after_ms,
            refused_by=call.refused_by,
            queued_us=call.queued_us,
            backoff_us=call.backoff_us,
        )
    return ExecuteResponse(
        request_id=call.request.request_id,
        error_class=ERROR_CLASSES[outcome.kind],
        error_message=outcome.message,
        duration_us=duration_us,
        retry_after_ms=outcome.retry_after_ms or call.retry_after_ms,
        refused_by=outcome.refused_by or call.refused_by,
        disposition=_disposition(call, outcome),
        attempts=call.attempts,
        queued_us=call.queued_us,
        backoff_us=call.backoff_us,
    )


def _disposition(call: Call, failure: Failure) -> Disposition:
    return call.disposition if failure.disposition is None else failure.disposition


def _audit_limit(call: Call, failure: Failure) -> None:
    """Tell that a limit refused; what else refuses tells it by itself."""
    if _ENDED_BY[failure.kind] == "policy":
        request = call.request
        audit_limit(
            failure.refused_by or "",
            call.caller,
            request.tenant_id,
            workspace=request.workspace_id,
            origin=call.origin or None,
            trace_id=request.trace_id,
        )


def _log_call(
    call: Call, outcome: Outcome | None, duration_us: int, error_class: str, disposition: str
) -> None:
    """The one line of a call; `outcome` None is a call whose caller went away."""
    request, progress = call.request, call.progress
    line = CallLine(
        trace_id=request.trace_id or "",
        tenant=request.tenant_id,
        workspace=request.workspace_id or "",
        request_id=request.request_id,
        connection=call.caller.connection_id,
        connector=request.connector_name,
        origin=call.origin,
        status=call.status_code,
        error_class=error_class,
        disposition=disposition,
        sent_bytes=call.sent_bytes,
        received_bytes=call.received_bytes,
        duration_us=duration_us,
        first_byte_us=progress.first_byte_us,
        connect_us=progress.connect_us,
    )
    if isinstance(outcome, Failure):
        line.reason = outcome.message if outcome.logged is None else outcome.logged
    if call.refused_by is not None:
        line.refused_by = call.refused_by
    if call.attempts > 1:
        line.attempts, line.backoff_us = call.attempts, call.backoff_us
    if call.queued_us:
        line.queued_us = call.queued_us
    write_call(line)
