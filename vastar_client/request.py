"""HTTP requests: one dataclass, and builders that make it step by step.

`HTTPRequest` is the published SDK's mutable dataclass with more optional fields. `json=`,
`data=` and `params=` are resolved into body, headers and URL at construction, so a request that
exists can be sent. The Go SDK's builders (`GET(url).with_json(...)`) are methods of the request
itself; each returns a changed copy, so that a half-built request can be shared.

A body is bytes, or something that makes them while they are sent: a file or an iterator. Those are
told apart here and read elsewhere (`_bodies`).
"""

from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from typing import Any, Protocol, Self, TypeAlias, TypedDict, Unpack, runtime_checkable
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from vastar_client._headers import HeaderTypes, header_pairs, is_named, pairs_of
from vastar_client.config import check_timeout_ms

__all__ = [
    "DELETE",
    "GET",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "POST",
    "PUT",
    "HTTPRequest",
    "Readable",
    "RequestOptions",
    "StreamedBody",
    "build_request",
    "request_of",
    "timeout_ms_of",
]

Body: TypeAlias = bytes | bytearray | memoryview | str


@runtime_checkable
class Readable(Protocol):
    """A file, or what can be read like one; `read` may also be a coroutine function."""

    def read(self, size: int = ..., /) -> Any:
        """Up to `size` bytes or characters, none at the end."""


StreamedBody: TypeAlias = Readable | Iterable[Body] | AsyncIterable[Body]
"""What makes a body while it is sent."""

FormTypes: TypeAlias = Body | Mapping[str, Any] | Sequence[tuple[str, Any]]
QueryTypes: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclass(repr=False)
class HTTPRequest:
    """One HTTP request to make through the runtime.

    Args:
        method: the HTTP method; the runtime upper-cases it.
        url: absolute, http or https.
        headers: a mapping, or pairs where a name repeats.
        body: bytes, or text that travels as UTF-8. Or what makes either while it is sent, in
            pieces of any size: a file, an iterator, an async iterator.
        timeout_ms: the deadline of this call, by default the client's.
        tenant_id: on whose behalf, by default the client's.
        workspace_id: as above.
        trace_id: goes into every log line of the call, and upstream.
        idempotency_key: declares a repeat harmless, so that the runtime may retry a POST.
        follow_redirects: whether a 3xx is followed.
        decode_content: whether gzip, deflate and br are undone by the runtime.
        params: added to the URL's query; None values are left out, sequences repeat the name.
        json: a value to send as JSON; None is no body (`with_json(None)` sends null).
        data: a body, or fields to send as a form.

    Raises:
        ValueError: two bodies are given, or the timeout is not positive.
        TypeError: a header is no string, or the JSON value cannot be written.
    """

    method: str
    url: str
    headers: HeaderTypes | None = None
    body: Body | StreamedBody | None = None
    timeout_ms: int | None = None
    tenant_id: str | None = None
    workspace_id: str | None = None
    trace_id: str | None = None
    _: KW_ONLY
    idempotency_key: str | None = None
    follow_redirects: bool = True
    decode_content: bool = True
    params: InitVar[QueryTypes | None] = None
    json: InitVar[Any] = None
    data: InitVar[FormTypes | None] = None

    def __post_init__(
        self, params: QueryTypes | None, json: object, data: FormTypes | None
    ) -> None:
        if sum(given is not None for given in (self.body, json, data)) > 1:
            raise ValueError("an HTTPRequest has one body: give one of body, json and data")
        if self.timeout_ms is not None:
            check_timeout_ms("HTTPRequest.timeout_ms", self.timeout_ms)
        if params is not None:
            self.url = _with_query(self.url, params)
        if json is not None:
            self._set_body(msgspec.json.encode(json), "application/json")
        elif isinstance(data, bytes | bytearray | memoryview | str):
            self.body = data
        elif data is not None:
            form = urlencode(_query_pairs("data", data)).encode()
            self._set_body(form, "application/x-www-form-urlencoded")

    def _set_body(self, body: bytes, content_type: str) -> None:
        self.body = body
        pairs = self.header_pairs()
        if not is_named(pairs, "content-type"):
            pairs.append(("Content-Type", content_type))
            self.headers = pairs if isinstance(self.headers, Sequence) else dict(pairs)

    def header_pairs(self) -> list[tuple[str, str]]:
        """The header fields as a new list of pairs.

        Raises:
            TypeError: a name or value is no string.
        """
        return header_pairs(self.headers)

    def streamed_body(self) -> StreamedBody | None:
        """The body, when it is a file or an iterator that is read while it is sent, else None.

        A list is none: as a body it is a mistake more often than pieces.
        """
        body: object = self.body
        if body is None or isinstance(body, bytes | bytearray | memoryview | str):
            return None  # the usual case, ahead of the dearer questions
        if isinstance(body, Readable | AsyncIterable):
            return body
        if isinstance(body, Iterable) and not isinstance(body, Collection):
            return body
        return None

    def body_bytes(self) -> bytes | bytearray | memoryview | None:
        """The body as it travels: text as UTF-8, no body and an empty one as None.

        Raises:
            TypeError: it is neither bytes nor text.
        """
        if self.body is None:
            return None
        body = self.body.encode() if isinstance(self.body, str) else self.body
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(
                f"HTTPRequest.body is {type(body).__name__}: it must be bytes or str, or a file "
                "or iterator of them that is sent as it is read; use json= for a value"
            )
        if isinstance(body, memoryview) and (body.itemsize, body.ndim) != (1, 1):
            body = body.cast("B")
        return body if len(body) else None

    def get_header(self, name: str) -> str | None:
        """The last value of header `name` in any case, or None."""
        wanted = name.lower()
        return next((v for k, v in reversed(self.header_pairs()) if k.lower() == wanted), None)

    def with_header(self, name: str, value: str) -> Self:
        """A copy in which header `name` has this value alone, whatever its case was."""
        wanted = name.lower()
        kept = [(k, v) for k, v in self.header_pairs() if k.lower() != wanted]
        return replace(self, headers=[*kept, (name, value)])

    def with_headers(self, headers: HeaderTypes) -> Self:
        """A copy with each of `headers` set as `with_header` does; repeats among them are kept."""
        new = header_pairs(headers)
        names = {name.lower() for name, _ in new}
        kept = [(k, v) for k, v in self.header_pairs() if k.lower() not in names]
        return replace(self, headers=kept + new)

    def with_query(self, params: QueryTypes) -> Self:
        """A copy with `params` added to the URL's query."""
        return replace(self, params=params)

    def with_body(self, body: Body | StreamedBody) -> Self:
        """A copy with this body."""
        return replace(self, body=body)

    def with_json(self, value: object) -> Self:
        """A copy with `value` as its JSON body, and the content type unless one is set.

        Raises:
            TypeError: the value cannot be written as JSON.
        """
        request = replace(self)
        request._set_body(msgspec.json.encode(value), "application/json")  # noqa: SLF001  # a copy of self
        return request

    def with_form(self, fields: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> Self:
        """A copy with `fields` as its URL-encoded form body."""
        return replace(self, body=None, data=fields)

    def with_timeout(self, timeout_ms: int) -> Self:
        """A copy with this deadline, in milliseconds from the start of the call.

        Raises:
            ValueError: it is not positive.
        """
        return replace(self, timeout_ms=timeout_ms)

    def with_tenant_id(self, tenant_id: str) -> Self:
        """A copy on behalf of this tenant."""
        return replace(self, tenant_id=tenant_id)

    def with_workspace_id(self, workspace_id: str) -> Self:
        """A copy in this workspace."""
        return replace(self, workspace_id=workspace_id)

    def with_trace_id(self, trace_id: str) -> Self:
        """A copy with this trace id."""
        return replace(self, trace_id=trace_id)

    def with_idempotency_key(self, key: str) -> Self:
        """A copy that the runtime may send again, under this key."""
        return replace(self, idempotency_key=key)

    def __repr__(self) -> str:
        try:
            streamed = self.streamed_body() is not None
            body = "streamed" if streamed else f"{len(self.body or b'')} bytes"  # type: ignore[arg-type]  # else bytes
            names = ", ".join(name for name, _ in self.header_pairs())
            url = _shown_url(self.url)
        except (TypeError, AttributeError):
            return f"<HTTPRequest {self.method} that cannot be sent>"
        return f"<HTTPRequest {self.method} {url} headers=[{names}] body={body}>"


class RequestOptions(TypedDict, total=False):
    """Keyword arguments of the verb methods: those of `HTTPRequest`, and a timeout in seconds."""

    headers: HeaderTypes | None
    body: Body | StreamedBody | None
    json: Any
    data: FormTypes | None
    params: QueryTypes | None
    timeout_s: float | None
    tenant_id: str | None
    workspace_id: str | None
    trace_id: str | None
    idempotency_key: str | None
    follow_redirects: bool
    decode_content: bool


def build_request(method: str, url: str, **options: Unpack[RequestOptions]) -> HTTPRequest:
    """An `HTTPRequest` from the keyword arguments of a verb method.

    Raises:
        ValueError: the timeout is not positive, or two bodies are given.
    """
    timeout_s = options.pop("timeout_s", None)
    fields: dict[str, Any] = dict(options)
    if timeout_s is not None:
        fields["timeout_ms"] = timeout_ms_of(timeout_s)
    return HTTPRequest(method, url, **fields)


def request_of(
    request: HTTPRequest | str, url: str | None, **options: Unpack[RequestOptions]
) -> HTTPRequest:
    """What a method means that takes a request, or a method and a URL with options.

    Raises:
        TypeError: it is neither, or both.
        ValueError: as `build_request`.
    """
    if isinstance(request, HTTPRequest):
        if url is not None or options:
            raise TypeError("give an HTTPRequest alone, or a method and a URL with options")
        return request
    if not isinstance(request, str) or not isinstance(url, str):
        raise TypeError(
            'give an HTTPRequest, or a method and a URL, such as ("GET", "https://example.com/")'
        )
    return build_request(request, url, **options)


def timeout_ms_of(timeout_s: float) -> int:
    """`timeout_s` in milliseconds, at least 1.

    Raises:
        ValueError: it is no number, not above 0, or not finite.
    """
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not 0 < timeout_s < float("inf"):
        raise ValueError(f"timeout_s is {timeout_s!r}: it must be a number of seconds above 0")
    return max(1, round(timeout_s * 1000))


def GET(url: str) -> HTTPRequest:  # noqa: N802  # the Go SDK's name, as are its siblings
    """A GET request to build on."""
    return HTTPRequest("GET", url)


def POST(url: str) -> HTTPRequest:  # noqa: N802
    """A POST request to build on."""
    return HTTPRequest("POST", url)


def PUT(url: str) -> HTTPRequest:  # noqa: N802
    """A PUT request to build on."""
    return HTTPRequest("PUT", url)


def PATCH(url: str) -> HTTPRequest:  # noqa: N802
    """A PATCH request to build on."""
    return HTTPRequest("PATCH", url)


def DELETE(url: str) -> HTTPRequest:  # noqa: N802
    """A DELETE request to build on."""
    return HTTPRequest("DELETE", url)


def HEAD(url: str) -> HTTPRequest:  # noqa: N802
    """A HEAD request to build on."""
    return HTTPRequest("HEAD", url)


def OPTIONS(url: str) -> HTTPRequest:  # noqa: N802
    """An OPTIONS request to build on."""
    return HTTPRequest("OPTIONS", url)


def _query_pairs(what: str, params: QueryTypes) -> list[tuple[str, str]]:
    """Names and texts: None left out, sequences repeated, booleans as JSON writes them."""
    pairs: list[tuple[str, str]] = []
    for name, value in pairs_of(what, params):
        many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        values = value if many else [value]
        pairs += [(name, _query_text(one)) for one in values if one is not None]
    return pairs


def _query_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode() if isinstance(value, bytes) else str(value)


def _with_query(url: str, params: QueryTypes) -> str:
    """`url` with `params` behind the query that it has, before its fragment."""
    if not isinstance(url, str):
        raise TypeError(f"HTTPRequest.url is {type(url).__name__}: it must be str")
    added = urlencode(_query_pairs("params", params))
    if not added:
        return url
    base, mark, fragment = url.partition("#")
    glue = "?" if "?" not in base else "" if base.endswith(("?", "&")) else "&"
    return f"{base}{glue}{added}{mark}{fragment}"


def _shown_url(url: str) -> str:
    """`url` without what may be secret: userinfo, the values of the query, the fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<unreadable URL>"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "..." if parts.query else "", ""))
