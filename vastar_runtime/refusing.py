"""What of a connection's requests is refused before it is begun: the questions, in their order.

Cheap ones that need no policy, asked of every request by its connection's reader.
"""

from collections.abc import Container
from typing import Final

from vastar_client.wire import ExecuteRequest
from vastar_runtime.identity.guests import Guest
from vastar_runtime.identity.visas import NOT_ALLOWED, Visa
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.runtime_state import RuntimeState

__all__ = ["why_not"]

_MAX_ID_CHARACTERS: Final = 1024
"""Ids are in pool keys, log lines and `status`: a name, not a document."""

_DRAINING_RETRY_AFTER_MS: Final = 1000
"""About what a restart takes; when this one ends is not known."""

_FULL_RETRY_AFTER_MS: Final = 100
"""A call of the connection will have ended by then, or it is in for a long wait anyway."""


def why_not(  # noqa: PLR0917 - all that a connection knows of it; positional: the hot path
    request: ExecuteRequest,
    state: RuntimeState,
    visa: Visa | None,
    guest: Guest,
    calls: Container[int],
    in_flight: int,
    max_in_flight: int,
) -> Failure | None:
    """Why `request` is not begun at all, if so.

    Args:
        request: as it came.
        state: of the runtime.
        visa: of its caller, where tenants have rules.
        guest: whose it is.
        calls: ids in flight on its connection.
        in_flight: how many calls that are.
        max_in_flight: how many there may be.
    """
    if state.draining:
        return Failure(
            FailureKind.DRAINING,
            "draining: the runtime is going away",
            retry_after_ms=_DRAINING_RETRY_AFTER_MS,
            refused_by="drain:runtime",
        )
    for name in ("tenant_id", "workspace_id", "trace_id"):
        text = getattr(request, name)
        if text is not None and len(text) > _MAX_ID_CHARACTERS:
            return Failure(
                FailureKind.INVALID_REQUEST,
                f"{name} of {len(text)} characters: at most {_MAX_ID_CHARACTERS}",
            )
    # Ids that are too long never get here: what a visa was told it remembers.
    if visa is not None and not visa.admits(request):
        return NOT_ALLOWED
    if request.stream or request.body_follows:
        if not request.request_id:
            return Failure(FailureKind.INVALID_REQUEST, "a stream needs a request_id other than 0")
        if request.request_id in calls:
            return Failure(
                FailureKind.INVALID_REQUEST,
                f"request_id {request.request_id} is in flight: a stream needs one of its own",
            )
    if in_flight >= max_in_flight:
        return Failure(
            FailureKind.OVERLOADED,
            f"{in_flight} calls are in flight on this connection, the most it may have",
            retry_after_ms=_FULL_RETRY_AFTER_MS,
            refused_by="in_flight:connection",
        )
    if guest.is_full:
        return Failure(
            FailureKind.OVERLOADED,
            f"{guest.held_bytes} bytes of requests and answers of this caller are in "
            f"memory, the most is {guest.max_held_bytes:.0f}: read what was answered",
            retry_after_ms=_FULL_RETRY_AFTER_MS,
            refused_by="memory:user",
        )
    return None
