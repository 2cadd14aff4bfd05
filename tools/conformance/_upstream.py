"""A tiny HTTP upstream on loopback: the paths that golden scenarios and rules ask for.

It notes what it saw by path: `began` when a request was whole, `gone` when its client left before
the answer was. A rule that says "the upstream was left alone" asks here, and believes nobody else.
"""

import base64
import json
import math
import random
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import attrs
import trio

__all__ = ["GOLDEN_PORT", "Upstream", "serving_upstream"]

GOLDEN_PORT: Final = 4600
"""It stands in the captured frames; another port of four digits can be put in its place."""
_MOST_DIGITS: Final = 9999
_TRIES: Final = 50
_PIECE_BYTES: Final = 32_768
_WORDS: Final = ("Hel", "lo ", "wor", "ld", " é!")
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, EOFError)


@attrs.frozen
class _Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return urllib.parse.urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        text = urllib.parse.urlsplit(self.target).query
        return dict(urllib.parse.parse_qsl(text, keep_blank_values=True))

    def number(self, name: str, default: float) -> float:
        return float(self.query.get(name, default))


@attrs.define(eq=False)
class Upstream:
    """The server.

    Attributes:
        port: where the implementation finds it on 127.0.0.1.
        began, gone: how often, by target.
    """

    port: int = GOLDEN_PORT
    began: Counter[str] = attrs.field(factory=Counter)
    gone: Counter[str] = attrs.field(factory=Counter)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds, which something noted here must bring about."""
        while not condition():
            await self._news.park()

    def _note(self, counter: Counter[str], target: str) -> None:
        counter[target] += 1
        self._news.unpark_all()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; closes it."""
        reader = _Reader(stream)
        try:
            while (request := await reader.request()) is not None:
                self._note(self.began, request.target)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, reader, request, nursery.cancel_scope)
                    await _answer(request, stream)
                    nursery.cancel_scope.cancel()
        except* _GONE:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _watch(self, reader: "_Reader", request: _Request, scope: trio.CancelScope) -> None:
        """End the answer when its client leaves."""
        with suppress(trio.BrokenResourceError):
            await reader.until_gone()
        self._note(self.gone, request.target)
        scope.cancel()


class _Reader:
    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._unread = b""

    async def _more(self) -> None:
        data = await self._stream.receive_some(_PIECE_BYTES)
        if not data:
            raise EOFError
        self._unread += data

    async def until_gone(self) -> None:
        try:
            while True:
                await self._more()
        except EOFError:
            return

    async def _until(self, end: bytes) -> bytes:
        while end not in self._unread:
            await self._more()
        found, _, self._unread = self._unread.partition(end)
        return found

    async def _exactly(self, count: int) -> bytes:
        pieces = []
        while count > len(self._unread):
            pieces.append(self._unread)
            count -= len(self._unread)
            self._unread = b""
            await self._more()
        pieces.append(self._unread[:count])
        self._unread = self._unread[count:]
        return b"".join(pieces)

    async def request(self) -> _Request | None:
        try:
            head = await self._until(b"\r\n\r\n")
        except EOFError:
            return None
        first, *lines = head.decode("latin1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
        known = {name.lower(): value for name, value in headers}
        body = b""
        if known.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await self._until(b"\r\n"), 16):
                body += await self._exactly(size)
                await self._exactly(2)
            await self._exactly(2)
        else:
            body = await self._exactly(int(known.get("content-length", 0)))
        method, target, *_ = first.split(" ")
        return _Request(method, target, headers, body)


def _response(
    request: _Request, body: bytes, *headers: str, status: int = 200, kind: str = "text/plain"
) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", *headers]
    lines += [f"Content-Length: {len(body)}", "", ""]
    head = "\r\n".join(lines).encode("latin1")
    return head if request.method == "HEAD" else head + body


def _json(request: _Request, value: object, *headers: str) -> bytes:
    return _response(request, json.dumps(value).encode(), *headers, kind="application/json")


def _echo(request: _Request) -> bytes:
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        text = None
    value = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": text,
        "body_b64": base64.b64encode(request.body).decode(),
        "len": len(request.body),
    }
    return _json(request, value, "X-Rig-Reply: Yes", "X-Mixed-Case: A b C")


def _events(request: _Request) -> Iterator[tuple[float, bytes]]:
    """(seconds before, bytes) of an OpenAI-shaped event stream."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    yield 0, f"{head}X-Sse: 1\r\n\r\n".encode()
    gap_s = request.number("gap", 20) / 1000
    for index in range(int(request.number("n", 5))):
        delta = {"content": _WORDS[index % len(_WORDS)]}
        event = json.dumps({"choices": [{"index": 0, "delta": delta}]})
        data = f"data: {event}\n\n".encode()
        yield (gap_s if index else 0.0), b"%x\r\n%b\r\n" % (len(data), data)
    yield gap_s, b"e\r\ndata: [DONE]\n\n\r\n"
    yield request.number("hold", 0), b"0\r\n\r\n"


def _big(request: _Request) -> Iterator[tuple[float, bytes]]:
    size = int(request.number("n", 1000))
    yield 0, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size
    for start in range(0, size, _PIECE_BYTES):
        yield 0, b"y" * min(_PIECE_BYTES, size - start)


def _quiet(request: _Request) -> Iterator[tuple[float, bytes]]:
    """A head, silence, and a short body."""
    yield 0, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
    yield request.number("s", 20), b"ok"


def _sleep(request: _Request) -> Iterator[tuple[float, bytes]]:
    ms = int(request.number("ms", 100))
    yield ms / 1000, _json(request, {"slept": ms, "tag": request.query.get("tag", "")})


def _hang(_: _Request) -> Iterator[tuple[float, bytes]]:
    yield math.inf, b""


def _redirect(request: _Request) -> bytes:
    location = f"Location: {request.query.get('to', '/echo')}"
    return _response(request, b"moved", location, status=int(request.number("st", 302)))


def _status(request: _Request) -> bytes:
    status = int(request.path.rsplit("/", 1)[1])
    return _response(request, b"status body %d" % status, f"X-S: {status}", status=status)


_AT_ONCE: Final[dict[str, Callable[[_Request], bytes]]] = {
    "/small": lambda r: _json(r, {"ok": True, "msg": "hello world"}),
    "/echo": _echo,
    "/binary": lambda r: _response(r, bytes(range(256)), kind="application/octet-stream"),
    "/length": lambda r: _response(r, b"%d" % len(r.body)),
    "/redirect": _redirect,
}
_BY_AND_BY: Final[dict[str, Callable[[_Request], Iterator[tuple[float, bytes]]]]] = {
    "/sse": _events,
    "/big": _big,
    "/quiet": _quiet,
    "/sleep": _sleep,
    "/hang": _hang,
}


async def _answer(request: _Request, stream: trio.abc.SendStream) -> None:
    path = request.path
    if path in _BY_AND_BY:
        for wait_s, data in _BY_AND_BY[path](request):
            await trio.sleep(wait_s)
            await stream.send_all(data)
        return
    at_once = _status if path.startswith("/status/") else _AT_ONCE.get(path)
    await stream.send_all(
        at_once(request) if at_once else _response(request, b"not found", status=404)
    )


async def _listeners() -> tuple[int, list[trio.SocketListener]]:
    """On a port of four digits, so that it fits into the captured frames."""
    chance = random.Random()  # noqa: S311 - no secret
    ports = [GOLDEN_PORT, *(chance.randint(2000, _MOST_DIGITS) for _ in range(_TRIES))]
    for port in ports:
        try:
            return port, await trio.open_tcp_listeners(port, host="127.0.0.1")
        except OSError:
            continue
    raise OSError(f"none of {len(ports)} ports of 127.0.0.1 below 10000 can be listened on")


@asynccontextmanager
async def serving_upstream() -> AsyncIterator[Upstream]:
    """An upstream on loopback while the block runs.

    Raises:
        OSError: no port of four digits is free.
    """
    port, listeners = await _listeners()
    upstream = Upstream(port)
    serve: Callable[[], Awaitable[None]] = partial(
        trio.serve_listeners, upstream.serve_stream, listeners
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield upstream
        nursery.cancel_scope.cancel()
