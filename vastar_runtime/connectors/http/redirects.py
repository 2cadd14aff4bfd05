"""What follows a redirect: the next request, or none.

RFC 9110 section 15.4. After 301, 302 and 303 the next request is a GET without the body, as the
published runtime does for every method but HEAD; 307 and 308 keep both. What identifies the
caller to one origin is not sent to another, and the path's own userinfo is used where it has some.
A body that came in pieces and is no longer there from its start cannot follow: the redirect itself
is the answer then.
"""

from typing import Final

from vastar_runtime.connectors.http.headers import without_headers
from vastar_runtime.connectors.http.target import Target
from vastar_runtime.transport.messages import UpstreamRequest, rewind

__all__ = ["REDIRECTS", "redirected"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD: Final = frozenset({307, 308})
_OF_THE_BODY: Final = frozenset(
    {b"content-type", b"content-encoding", b"content-language", b"content-location", b"digest"}
)
_OF_ONE_ORIGIN: Final = frozenset(
    b"host authorization cookie proxy-authorization "
    # The names under which providers take keys instead (ours: RFC 9110 15.4 says "consider").
    b"x-api-key api-key apikey x-goog-api-key x-auth-token x-access-token x-amz-security-token "
    b"x-functions-key ocp-apim-subscription-key private-token".split()
)


def redirected(request: UpstreamRequest, status: int, target: Target) -> UpstreamRequest | None:
    """The request that a redirect with `status` to `target` asks for; None if it cannot be made.

    A body that it keeps has been rewound.
    """
    headers = list(request.headers)
    method, body = request.method, request.body
    if status not in _KEEP_METHOD and method != b"HEAD":
        method, body = b"GET", None
        headers = without_headers(headers, _OF_THE_BODY)
    elif not rewind(body):
        return None
    if target.origin != request.origin:
        headers = without_headers(headers, _OF_ONE_ORIGIN)
        headers.append((b"host", target.origin.authority.encode()))
    if target.authorization is not None:
        headers = without_headers(headers, frozenset({b"authorization"}))
        headers.append((b"authorization", target.authorization))
    return UpstreamRequest(
        method=method,
        origin=target.origin,
        target=target.path_and_query,
        headers=headers,
        body=body,
        replayable=request.replayable,
    )
