"""Between the connectors and their upstreams: each request gets the credential of its origin.

The connector's requests stay as they were: it follows redirects with requests that never had the
key, so no key can go along. And a call that was led to another origin gets none any more, not even
when it comes back or when one is configured for where it arrives: where it goes then was chosen by
an upstream, and that must not be able to make calls with somebody's key.
"""

from types import TracebackType
from typing import Final, Self

import trio

from vastar_runtime.audit import audit
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.connector import Lease, Upstreams
from vastar_runtime.credentials.book import CredentialBook
from vastar_runtime.credentials.injecting import refusal_of
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.transport.messages import Origin, UpstreamRequest
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["CredentialedUpstreams"]

_UNAUTHORIZED: Final = 401


class CredentialedUpstreams:
    """Upstreams that are reached with the credentials of the book.

    Args:
        inner: those that it leads to.
        book: of now; another one is put here when the configuration changes.
    """

    def __init__(self, inner: Upstreams, book: CredentialBook) -> None:
        self._inner = inner
        self.book = book

    def lease(self, call: Call) -> Lease:
        """The way of one call; no other than before where its tenant has no credentials."""
        lease = self._inner.lease(call)
        if call.request.tenant_id not in self.book.tenants:
            return lease
        return _CredentialedLease(lease, call, self.book)


class _CredentialedLease:
    """A lease whose requests get a credential."""

    __slots__ = ("_book", "_call", "_first", "_has_left", "_inner", "saw", "saw_event")

    def __init__(self, inner: Lease, call: Call, book: CredentialBook) -> None:
        self._inner = inner
        self._call = call
        self._book = book
        self._first: Origin | None = None
        self._has_left = False
        self.saw = inner.saw
        self.saw_event = inner.saw_event

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, traceback)

    @property
    def wants_events(self) -> bool:
        """As the inner one's."""
        return self._inner.wants_events

    async def request(self, request: UpstreamRequest) -> UpstreamResponse | Failure:
        """The same, with the credential of the request's origin. Raises TransportError."""
        if self._first is None:
            self._first = request.origin
        self._has_left = self._has_left or request.origin != self._first
        if self._has_left:
            return await self._inner.request(request)
        call = self._call
        message, origin = call.request, str(request.origin)
        credential = self._book.find(message.tenant_id, message.workspace_id, origin)
        if credential is None:
            return await self._inner.request(request)
        call.origin = origin
        refusal = refusal_of(request)
        if refusal is not None:
            audit(
                "credential_refused",
                caller=call.caller,
                tenant=message.tenant_id,
                workspace=message.workspace_id,
                origin=origin,
                rule="credentials:origin",
                reason=refusal,
                trace_id=message.trace_id,
            )
            return Failure(FailureKind.INVALID_REQUEST, refusal)
        source = credential.source
        if source is None:
            keyed = credential.put_into(request, None, trio.current_time())
            return await self._inner.request(keyed)
        token = await source.token(call)
        if isinstance(token, Failure):
            return token
        keyed = credential.put_into(request, token, trio.current_time())
        response = await self._inner.request(keyed)
        if not isinstance(response, Failure) and response.status == _UNAUTHORIZED:
            source.rejected(token)
        return response
