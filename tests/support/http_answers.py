"""The answers of the test upstream, by path: those of `vectors/upstream.py`, byte for byte."""

import base64
import gzip
import json
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable

import brotli
import trio

from tests.support.http_call import Call
from vastar_runtime.transport.channel import SocketChannel
from vastar_runtime.transport.memory import MemoryChannel

__all__ = ["find_answer"]

Answer = Callable[[Call], Awaitable[None]]
_ANSWERS: dict[str, Answer] = {}


def find_answer(path: str) -> Answer:
    """How the upstream answers a request for this path."""
    if path.startswith("/status/"):
        return _status
    return _ANSWERS.get(path, _not_found)


def _answers(*paths: str) -> Callable[[Answer], Answer]:
    def register(answer: Answer) -> Answer:
        for path in paths:
            _ANSWERS[path] = answer
        return answer

    return register


def _fixed(path: str, body: bytes, *headers: tuple[str, str | bytes]) -> None:
    async def answer(call: Call) -> None:
        await call.answer(body, list(headers))

    _ANSWERS[path] = answer


_JSON = ("Content-Type", "application/json")
_fixed("/small", b'{"ok": true, "msg": "hello world"}', _JSON)
_fixed("/binary", bytes(range(256)), ("Content-Type", "application/octet-stream"))
_fixed("/latin1", "café".encode("latin1"), ("Content-Type", "text/plain; charset=iso-8859-1"))
_fixed("/utf16", "hi".encode("utf-16"), ("Content-Type", "text/plain; charset=utf-16"))
_fixed("/bom", b'\xef\xbb\xbf{"a":1}', _JSON)
_fixed("/gzip", gzip.compress(b'{"gz":true}', mtime=0), _JSON, ("Content-Encoding", "gzip"))
_fixed("/deflate", zlib.compress(b'{"df":true}'), _JSON, ("Content-Encoding", "deflate"))
_fixed("/br", brotli.compress(b'{"br":true}'), _JSON, ("Content-Encoding", "br"))
_fixed(
    "/dup",
    b"dup",
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=2"),
    ("X-D", "first"),
    ("x-d", "second"),
    ("X-D", "third"),
    ("X-Empty", ""),
)
_fixed("/hdr_latin1", b"h", ("X-L", b"caf\xe9"), ("X-Ok", "1"), ("X-Utf", "café".encode()))


async def _not_found(call: Call) -> None:
    await call.answer(b"not found", [("Content-Type", "text/plain")], status=404)


async def _status(call: Call) -> None:
    status = int(call.path.split("/")[2])
    marker: tuple[str, str | bytes] = ("X-S", str(status))
    if status in {204, 304}:
        await call.answer(b"", [marker], status=status, length=False)
        return
    headers = [("Content-Type", "text/plain"), marker]
    if status in {429, 503}:
        headers.append(("Retry-After", "1"))
    await call.answer(b"status body %d" % status, headers, status=status)


@_answers("/_log")
async def _log(call: Call) -> None:
    body = json.dumps(call.log.events).encode()
    if call.query.get("clear"):
        call.log.events.clear()
    await call.text(body, "application/json")


@_answers("/echo")
async def _echo(call: Call) -> None:
    try:
        text = call.body.decode()
    except UnicodeDecodeError:
        text = None
    value = {
        "method": call.method,
        "target": call.target,
        "headers": [[name, value] for name, value in call.headers],
        "body": text,
        "body_b64": base64.b64encode(call.body).decode(),
        "len": len(call.body),
    }
    await call.json(value, ("X-Rig-Reply", "Yes"), ("X-Mixed-Case", "A b C"))


@_answers("/sleep")
async def _sleep(call: Call) -> None:
    ms, tag = call.number("ms", 100), call.query.get("tag", "")
    async with call.watched():
        call.note("sleep_start", tag=tag)
        await trio.sleep(ms / 1000)
        call.note("sleep_end", tag=tag)
    if call.reader.ended:
        return
    await call.json({"slept": ms, "tag": tag})
    call.closing = bool(call.query.get("watch"))


@_answers("/sse", "/v1/sse")
async def _sse(call: Call) -> None:
    words = ["Hel", "lo ", "wor", "ld", " é!"]
    kind = call.query.get("ct", "text/event-stream")
    await call.begin_chunked(kind, "X-Sse: 1", status=call.query.get("st", "200"))
    async with call.watched():
        call.note("sse_start")
        for index in range(call.number("n", 5)):
            event = {"choices": [{"index": 0, "delta": {"content": words[index % 5]}}]}
            await call.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
            await trio.sleep(call.number("gap", 20) / 1000)
        if call.query.get("done", "1") == "1":
            await call.chunk(b"data: [DONE]\n\n")
        call.note("sse_done_sent")
        if hold := call.number("hold", 0):
            await trio.sleep(hold / 1000)
        if call.query.get("tail") == "1":
            await call.chunk(b"data: after-done\n\n")
        if call.query.get("cut"):
            call.note("sse_cut")
            call.closing = True
        else:
            await call.out(b"0\r\n\r\n")
            call.note("sse_end")


@_answers("/sse_split")
async def _sse_split(call: Call) -> None:
    """A character and the end marker cut into single bytes."""
    await call.begin_chunked("text/event-stream; charset=utf-8")
    events = (
        'data: {"choices":[{"delta":{"content":"é中\U0001f600"}}]}\n\ndata: [DONE]\n\n'.encode()
    )
    async with call.watched():
        for index in range(len(events)):
            await call.chunk(events[index : index + 1])
            await trio.sleep(0.003)
        await call.out(b"0\r\n\r\n")


@_answers("/sse_fake")
async def _sse_fake(call: Call) -> None:
    """The end marker inside an event that is not the end."""
    middle = call.query.get("m", 'data: {"choices":[{"delta":{"content":"the [DONE] word"}}]}')
    await call.begin_chunked("text/event-stream")
    async with call.watched():
        for event in (b"data: one", middle.encode(), b"data: two"):
            await call.chunk(event + b"\n\n")
            await trio.sleep(0.05)
        await call.out(b"0\r\n\r\n")


@_answers("/sse_big")
async def _sse_big(call: Call) -> None:
    await call.begin_chunked("text/event-stream")
    block = b"data: " + b"z" * (65536 - 8) + b"\n\n"
    async with call.watched():
        for _ in range(call.number("mb", 12) * 16):
            await call.chunk(block)
        await call.out(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        call.note("sse_big_end")


@_answers("/big")
async def _big(call: Call) -> None:
    await call.text(b"y" * call.number("n", 1000), "text/plain")


@_answers("/cookie")
async def _cookie(call: Call) -> None:
    lowered = {name.lower(): value for name, value in call.headers}
    await call.answer(json.dumps(lowered).encode(), [("Set-Cookie", "sid=123; Path=/")])


@_answers("/redir")
async def _redir(call: Call) -> None:
    to = call.query.get("to", "/echo?from=redir")
    await call.answer(b"moved", [("Location", to)], status=call.number("st", 302))


@_answers("/loop")
async def _loop(call: Call) -> None:
    number, most = call.number("n", 0), call.number("max", 50)
    suffix = f"&max={call.query['max']}" if call.query.get("max") else ""
    to = f"/loop?n={number + 1}{suffix}" if number < most else "/small"
    await call.answer(b"", [("Location", to)], status=302)


@_answers("/chunked")
async def _chunked(call: Call) -> None:
    await call.begin_chunked("text/plain", "Trailer: X-T")
    async with call.watched():
        for index in range(3):
            await call.out(b"3\r\nab%d\r\n" % index)
            await trio.sleep(0.02)
        await call.out(b"0\r\nX-T: end\r\n\r\n")


def _raw(path: str, data: bytes) -> None:
    """An answer that is sent as it is; then the connection closes."""

    async def answer(call: Call) -> None:
        call.closing = True
        if data:
            await call.out(data)

    _ANSWERS[path] = answer


_TEXT = b"Content-Type: text/plain\r\n"
_raw("/short", b"HTTP/1.1 200 OK\r\n" + _TEXT + b"Content-Length: 100\r\n\r\nonly this")
_raw("/nolen", b"HTTP/1.1 200 OK\r\n" + _TEXT + b"Connection: close\r\n\r\nuntil close")
_raw("/http10", b"HTTP/1.0 200 OK\r\n" + _TEXT + b"\r\nold")
_raw("/garbage", b"this is not http\r\n\r\n")
_raw("/closenow", b"")


@_answers("/reset")
async def _reset(call: Call) -> None:
    channel = call.channel
    call.closing = True
    if isinstance(channel, MemoryChannel):
        channel.reset()
    elif isinstance(channel, SocketChannel):
        linger = struct.pack("ii", 1, 0)
        channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@_answers("/hang")
async def _hang(call: Call) -> None:
    call.closing = True
    async with call.watched():
        call.note("hang_start")
        await trio.sleep(float(call.query.get("s", "30")))


@_answers("/drip")
async def _drip(call: Call) -> None:
    """A body that trickles."""
    count, gap_ms = call.number("n", 10), call.number("gap", 200)
    await call.out(b"HTTP/1.1 200 OK\r\n" + _TEXT + b"Content-Length: %d\r\n\r\n" % count)
    async with call.watched():
        call.note("body_start")
        for _ in range(count):
            await trio.sleep(gap_ms / 1000)
            await call.out(b".")


@_answers("/flaky")
async def _flaky(call: Call) -> None:
    """Fails the first `fail` times for a `key`."""
    key, how = call.query.get("key", "k"), call.query.get("how", "503")
    calls = call.log.flaky_calls
    calls[key] = calls.get(key, 0) + 1
    if calls[key] > call.number("fail", 2):
        await call.json({"attempt": calls[key]})
    elif how == "close":
        call.closing = True
    else:
        await call.answer(b"flaky", [("Retry-After", "0")], status=int(how))


@_answers("/early")
async def _early(call: Call) -> None:
    await call.out(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    await call.json({"early": 1})


@_answers("/gone_keepalive")
async def _gone_keepalive(call: Call) -> None:
    call.closing = True
    await call.json({"ka": 1})
    await trio.sleep(0.05)
