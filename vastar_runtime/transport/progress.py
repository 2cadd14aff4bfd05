"""How far one call got, told by the transport while it works.

A mutable value that the caller makes, passes in and keeps: when a deadline or a cancellation tears
the call down no exception of ours can carry the news, but the caller still holds this and reads
the phase and the disposition from it. One per call; a retry of the caller's makes a new one.
"""

from enum import Enum

import attrs

from vastar_client.wire.enums import Disposition

__all__ = ["Phase", "Progress"]


class Phase(Enum):
    """What the transport was doing; the value reads well after "failed at" or "while"."""

    POOL = "waiting for a connection"
    DNS = "name lookup"
    CONNECT = "connect"
    PROXY = "proxy"
    TLS = "TLS handshake"
    SEND = "sending the request"
    HEAD = "waiting for the response"
    BODY = "reading the response body"


@attrs.define(eq=False)
class Progress:
    """State and timings of one call. `_us`: microseconds on Trio's clock, `None` = not done.

    Attributes:
        phase: what the transport is doing, or was doing when it stopped.
        request_begun: a byte of the request may have left this host.
        request_sent: all of the request was taken by the operating system.
        response_started: a byte of the response was received.
        completed: the response was received to its end.
        reused: the (last) connection had served a call before.
        resent: an idle connection turned out dead and the request was sent again on a fresh one.
        queued_us: wait for a place in the connection pool.
        dns_us, connect_us, tls_us: steps of a fresh connection; connect includes a proxy's answer.
        first_byte_us: from handing the request to the socket until the first response byte.
    """

    phase: Phase = Phase.POOL
    request_begun: bool = False
    request_sent: bool = False
    response_started: bool = False
    completed: bool = False
    reused: bool = False
    resent: bool = False
    queued_us: int | None = None
    dns_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    first_byte_us: int | None = None

    @property
    def disposition(self) -> Disposition:
        """Whether the upstream may have acted on the request, said with care."""
        if self.completed:
            return Disposition.COMPLETED
        if self.response_started:
            return Disposition.RESPONSE_STARTED
        if self.request_begun:
            return Disposition.SENT_NO_RESPONSE
        return Disposition.NOT_SENT
