"""Put a credential into a request, where it can only reach its own origin.

What a caller chooses may lead a key elsewhere although the connection goes to the right place: a
Host header names another site behind the same front (of a content network, say), and TRACE has the
answer repeat the request. Both are refused for an origin that a credential is configured for.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from vastar_runtime.transport.messages import UpstreamRequest, header_values

__all__ = ["refusal_of", "with_headers"]

_ECHOES: Final = frozenset({b"TRACE", b"TRACK"})


def refusal_of(request: UpstreamRequest) -> str | None:
    """Why a key may not go into this request, in words; None where it may."""
    origin = request.origin
    if request.method in _ECHOES:
        method = request.method.decode()
        return f"{method} has the answer repeat the credential that the runtime adds for {origin}"
    own = {origin.authority.encode(), origin.address.encode()}
    if any(host.lower() not in own for host in header_values([*request.headers], b"host")):
        return (
            f"the Host header names another site than {origin}, for which the runtime adds a "
            "credential; leave it out"
        )
    return None


def with_headers(
    request: UpstreamRequest, names: frozenset[bytes], headers: Iterable[tuple[bytes, bytes]]
) -> UpstreamRequest:
    """A new request: `headers`, of these `names`, in place of what `request` has under them."""
    kept: Sequence[tuple[bytes, bytes]] = [pair for pair in request.headers if pair[0] not in names]
    return UpstreamRequest(
        method=request.method,
        origin=request.origin,
        target=request.target,
        headers=[*kept, *headers],
        body=request.body,
        replayable=request.replayable,
    )
