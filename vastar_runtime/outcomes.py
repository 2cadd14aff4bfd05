"""What became of a call: the vocabulary that policies, connectors and dispatch share.

Inside the runtime outcomes are values, not exceptions: a policy can look at one, count it and
pass it on, and nothing is raised through the layers but cancellation. `dispatch` maps the kinds
to wire error classes in one table.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, TypeAlias

import msgspec

from vastar_client.wire.enums import Disposition, PayloadFormat
from vastar_client.wire.messages import Buffer

__all__ = ["Disposition", "Failure", "FailureKind", "Outcome", "Reply", "Streamed", "too_large"]


class FailureKind(Enum):
    """Why a call got no answer from its upstream, or none that can be handed on."""

    INVALID_REQUEST = auto()
    """The caller's fault: saying the same again will fail again."""
    NOT_SUPPORTED = auto()
    """Well-formed, but not something that this runtime does."""
    UPSTREAM = auto()
    """Refused, unreachable, reset, garbled or cut short: the next try may succeed."""
    UPSTREAM_PERMANENT = auto()
    """The upstream answered something that will not get better by asking again."""
    TIMEOUT = auto()
    """A deadline or timeout of the call passed."""
    RATE_LIMITED = auto()
    """A limit on calls or tokens in a time, ours or the upstream's, is used up."""
    CIRCUIT_OPEN = auto()
    """The upstream failed too often, and is left alone for a while."""
    OVERLOADED = auto()
    """A bound of our own on calls under way was reached."""
    DRAINING = auto()
    """The runtime is going away."""
    TOO_LARGE = auto()
    """The answer does not fit into a frame."""
    CANCELLED = auto()
    """The caller took the call back."""
    INTERNAL = auto()
    """A bug of ours."""


class Reply(msgspec.Struct, frozen=True):
    """The connector's answer, ready for the wire.

    Attributes:
        payload: one buffer, or several that belong one behind another.
        status_code: the upstream's own status, for the log line.
    """

    payload: Buffer | Sequence[Buffer]
    payload_format: PayloadFormat = PayloadFormat.JSON
    status_code: int = 0

    def __repr__(self) -> str:
        """Nothing of the payload: it may hold secrets."""
        return f"Reply(payload_format={self.payload_format!r}, status_code={self.status_code})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same, for `rich`."""
        return [("payload_format", self.payload_format), ("status_code", self.status_code)]


class Failure(msgspec.Struct, frozen=True):
    """Why there is no reply, in words for a person, and how to go on.

    Attributes:
        message: names cause and place (host, phase); no secrets.
        retry_after_ms: when it makes sense to come back; 0 is unknown.
        refused_by: policy and scope, where one of our own rules refused.
        disposition: how far the call got, where that is known better than by its progress.
        logged: what the log says in place of the message, where that may quote somebody's data.
    """

    kind: FailureKind
    message: str
    retry_after_ms: int = 0
    refused_by: str | None = None
    disposition: Disposition | None = None
    logged: str | None = None


class Streamed(msgspec.Struct, frozen=True):
    """The answer has gone to the caller piece by piece, to its end.

    Attributes:
        status_code: the upstream's own status, for the log line.
        trailers: that came behind the body.
    """

    status_code: int
    trailers: Sequence[tuple[str, str]] = ()


Outcome: TypeAlias = Reply | Streamed | Failure


def too_large(limit_bytes: int) -> Failure:
    """The failure of an answer that does not fit into a frame of `limit_bytes`."""
    return Failure(
        FailureKind.TOO_LARGE,
        f"response exceeds the frame limit of {limit_bytes} bytes: use streaming",
    )
