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

from vastar_client.wire import Disposition, ErrorClass, ExecuteRequest, ExecuteResponse
from vastar_runtime.calls import Call, Caller
from vastar_runtime.logs import call_context, get_logger
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.policy.deadline import Deadline

__all__ = ["ERROR_CLASSES", "Dispatcher", "refusal"]

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

_log = get_logger(__name__)


@attrs.frozen
class Dispatcher:
    """Serves requests through a pipeline.

    Attributes:
        wall_clock_ms: milliseconds since the Unix epoch; an argument so that tests can turn it.
        default_timeout_s: for calls that name no limit of their own.
        max_answer_bytes: longest answer frame, as the length prefix counts.
    """

    pipeline: Pipeline
    wall_clock_ms: Callable[[], float]
    default_timeout_s: float
    max_answer_bytes: int

    def accept(self, request: ExecuteRequest, caller: Caller) -> Call:
        """The call that `request` begins, now."""
        deadline = Deadline.arrive(
            trio.current_time(),
            self.wall_clock_ms(),
            request.deadline_at_ms,
            self.default_timeout_s,
        )
        return Call(request, caller, deadline, self.max_answer_bytes)

    async def serve(self, call: Call) -> ExecuteResponse:
        """The answer to `call`. Raises nothing but cancellation."""
        arrived_at_s = trio.current_time()
        request = call.request
        with call_context(
            trace_id=request.trace_id or "",
            tenant=request.tenant_id,
            workspace=request.workspace_id or "",
        ):
            outcome: Outcome | None = None
            try:
                outcome = await self._run(call)
            finally:
                duration_us = int((trio.current_time() - arrived_at_s) * 1_000_000)
                _log_call(call, outcome, duration_us)
        return _answer(call, outcome, duration_us)

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


def refusal(request_id: int, failure: Failure) -> ExecuteResponse:
    """The answer to a call that was not begun at all."""
    return ExecuteResponse(
        request_id=request_id,
        error_class=ERROR_CLASSES[failure.kind],
        error_message=failure.message,
        retry_after_ms=failure.retry_after_ms,
        refused_by=failure.refused_by,
        disposition=Disposition.NOT_SENT,
    )


def _answer(call: Call, outcome: Outcome, duration_us: int) -> ExecuteResponse:
    if isinstance(outcome, Reply):
        return ExecuteResponse(
            request_id=call.request.request_id,
            payload=outcome.payload,
            duration_us=duration_us,
            disposition=Disposition.COMPLETED,
            attempts=call.attempts,
            payload_format=outcome.payload_format,
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


def _log_call(call: Call, outcome: Outcome | None, duration_us: int) -> None:
    """The one line of a call; `outcome` None is a call whose caller went away."""
    progress = call.progress
    if isinstance(outcome, Failure):
        error_class = ERROR_CLASSES[outcome.kind].name
        disposition = _disposition(call, outcome).name
        why = {"reason": outcome.message}
    elif outcome is None:
        error_class, disposition, why = "GONE", call.disposition.name, {}
    else:
        error_class, disposition, why = "SUCCESS", Disposition.COMPLETED.name, {}
    _log.info(
        "call",
        request_id=call.request.request_id,
        connection=call.caller.connection_id,
        connector=call.request.connector_name,
        origin=call.origin,
        status=call.status_code,
        error_class=error_class,
        disposition=disposition,
        sent_bytes=call.sent_bytes,
        received_bytes=call.received_bytes,
        duration_us=duration_us,
        first_byte_us=progress.first_byte_us,
        connect_us=progress.connect_us,
        **why,
    )
