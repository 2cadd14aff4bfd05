"""The world that the documentation's code runs in: a real runtime, and upstreams by their names.

A runtime process listens on a Unix socket; its name lookup leads `https://api.example.com` (TLS,
with a certificate of an authority that the runtime is told to trust) and the simulator's usual
address to servers in a thread of the test. Every other name is unknown; `down.example.com`
and `broken.example.com` refuse connections. The test's own thread stays free for the code under
test, which may block or bring an event loop.

The policies are at their defaults but for `POLICIES`, which the guide shows, and for the circuit of
`down.example.com`: it never opens, so that what one block of a page does is not felt in the next.
"""

import gzip
import itertools
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
import trustme

from tests.support import leaks
from tests.support.commands import environment
from tests.support.http_call import Call, ClientGoneError, Reader
from tests.support.upstream import Upstream
from tools.llm_simulator import Knobs, Simulator
from vastar_runtime.transport import Channel

__all__ = ["POLICIES", "example_world"]

HOST = "api.example.com"
_START_S = 30
_PRICES = 4
_ITEMS = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}, {"id": 3, "name": "three"}]

POLICIES = """\
[tenants.trial.tenant_rate_limit]
limit = 2
period_s = 3600
"""
"""What this world's operator allows."""

_CONFIGURATION = """
[server]
socket_path = "{path}"
[tls]
ca_file = "{ca_file}"
[origins."https://down.example.com".breaker]
mode = "off"
"""

_RUNTIME = """
import json, socket, sys
from vastar_runtime.config import load_config
from vastar_runtime.server import run
from vastar_runtime.transport.network import Address, SystemNetwork

file, names = sys.argv[1:]
ports = json.loads(names)

async def resolve(self, host, port, *, tenant):
    if f"{host}:{port}" not in ports:
        raise socket.gaierror(socket.EAI_NONAME, "no such name in the documentation's world")
    return [Address(socket.AF_INET, ("127.0.0.1", ports[f"{host}:{port}"]))]

SystemNetwork.resolve = resolve
run(load_config(file=file, environ={}).config)
"""


class _ExampleApi(Upstream):
    """The API at api.example.com."""

    async def handle(self, channel: Channel) -> None:
        reader = Reader(channel)
        try:
            while not reader.ended:
                call = Call(self, reader, channel, 0)
                if not await call.read():
                    break
                await self._answer(call)
        except (ClientGoneError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            channel.abort()

    async def _answer(self, call: Call) -> None:
        answer = _ANSWERS.get((call.method, call.path))
        if answer is not None:
            await answer(self, call)
        elif call.path == "/v1/echo":
            headers = {name.lower(): value for name, value in call.headers}
            body = call.body.decode(errors="replace")
            await call.json({"method": call.method, "headers": headers, "body": body})
        elif call.path.startswith("/v1/items/") and call.path[10:].isdigit():
            await call.json({"id": int(call.path[10:])})
        else:
            await call.answer(b'{"error":"no such thing"}', [_JSON], status=404)

    async def items(self, call: Call) -> None:
        await call.json({"items": _ITEMS[: call.number("limit", 3)]})

    async def create(self, call: Call) -> None:
        item = {"id": 4, **json.loads(call.body or b"{}")}
        headers: list[tuple[str, str | bytes]] = [_JSON, ("Location", "/v1/items/4")]
        await call.answer(json.dumps(item).encode(), headers, status=201)

    async def shaky(self, call: Call) -> None:
        """Cannot serve the first call of a method and `key`, and serves the next."""
        key = f"{call.method} {call.query.get('key', '')}"
        self.flaky_calls[key] = self.flaky_calls.get(key, 0) + 1
        if self.flaky_calls[key] > 1:
            await call.json({"served": True})
        else:
            await call.answer(b'{"error":"not now"}', [_JSON], status=503)

    async def slow(self, call: Call) -> None:
        async with call.watched():
            await trio.sleep(call.number("ms", 60_000) / 1000)
        if not call.reader.ended:
            await call.json({"slow": True})

    async def events(self, call: Call) -> None:
        body = b'event: price\ndata: {"usd": 12}\nid: 7\n\nevent: price\ndata: {"usd": 13}\n\n'
        await call.text(body, "text/event-stream")

    async def feed(self, call: Call) -> None:
        """Prices 1 to 4, two on a connection, then nothing more; it asks to come back at once."""
        told = {name.lower(): value for name, value in call.headers}.get("last-event-id", "0")
        first = int(told) + 1
        if first > _PRICES:
            await call.answer(b"", status=204, length=False)
            return
        await call.begin_chunked("text/event-stream")
        for number in (first, first + 1):
            await call.chunk(b'retry: 10\nid: %d\ndata: {"usd": %d}\n\n' % (number, 10 + number))
        await call.out(b"0\r\n\r\n")

    async def ticks(self, call: Call) -> None:
        """An event every 50 ms, without end."""
        await call.begin_chunked("text/event-stream")
        async with call.watched():
            for number in itertools.count(1):
                await call.chunk(b"data: tick %d\n\n" % number)
                await trio.sleep(0.05)

    async def lines(self, call: Call) -> None:
        await call.begin_chunked("application/x-ndjson")
        for number in (1, 2):
            await call.chunk(b'{"id": %d}\n' % number)
        await call.out(b"0\r\n\r\n")

    async def broken_stream(self, call: Call) -> None:
        """Two events, and then the connection breaks."""
        await call.begin_chunked("text/event-stream")
        await call.chunk(b"data: one\n\ndata: two\n\n")
        raise ClientGoneError

    async def upload(self, call: Call) -> None:
        length = {name.lower(): value for name, value in call.headers}.get("content-length")
        await call.json({"bytes": len(call.body), "declared": length})

    async def export(self, call: Call) -> None:
        raw = gzip.compress(b"a,b\n1,2\n", mtime=0)
        await call.text(raw, "text/csv", ("Content-Encoding", "gzip"))

    async def logo(self, call: Call) -> None:
        await call.text(b"\x89PNG\r\n\x1a\n", "image/png")

    async def login(self, call: Call) -> None:
        cookies = [("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", "lang=en")]
        await call.json({"ok": True}, *cookies)

    async def old(self, call: Call) -> None:
        await call.answer(b"", [("Location", "/v1/items?limit=1")], status=301)

    async def big(self, call: Call) -> None:
        await call.text(b"y" * call.number("bytes", 1), "text/plain")


_JSON: tuple[str, str | bytes] = ("Content-Type", "application/json")
_ANSWERS: dict[tuple[str, str], Callable[[_ExampleApi, Call], Awaitable[None]]] = {
    ("GET", "/v1/items"): _ExampleApi.items,
    ("POST", "/v1/items"): _ExampleApi.create,
    ("GET", "/v1/shaky"): _ExampleApi.shaky,
    ("POST", "/v1/shaky"): _ExampleApi.shaky,
    ("GET", "/v1/slow"): _ExampleApi.slow,
    ("POST", "/v1/slow"): _ExampleApi.slow,
    ("GET", "/v1/events"): _ExampleApi.events,
    ("GET", "/v1/feed"): _ExampleApi.feed,
    ("GET", "/v1/ticks"): _ExampleApi.ticks,
    ("GET", "/v1/lines"): _ExampleApi.lines,
    ("GET", "/v1/broken-stream"): _ExampleApi.broken_stream,
    ("PUT", "/v1/files/report"): _ExampleApi.upload,
    ("GET", "/v1/export"): _ExampleApi.export,
    ("GET", "/v1/logo.png"): _ExampleApi.logo,
    ("POST", "/v1/login"): _ExampleApi.login,
    ("GET", "/v1/old"): _ExampleApi.old,
    ("GET", "/v1/big"): _ExampleApi.big,
}


@asynccontextmanager
async def _upstreams(folder: Path) -> AsyncIterator[dict[str, int]]:
    """What there is in this world, while the block runs."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(tls)
    api = _ExampleApi()
    with (
        socket.create_server(("127.0.0.1", 0)) as secure,
        socket.create_server(("127.0.0.1", 0)) as plain,
        socket.socket() as closed,
    ):
        closed.bind(("127.0.0.1", 0))
        async with Simulator(Knobs(seed=1)).running() as llm, trio.open_nursery() as nursery:
            for listener, context in ((secure, tls), (plain, None)):
                listener.setblocking(False)
                nursery.start_soon(api.listen, listener, context, nursery)
            yield {
                f"{HOST}:443": secure.getsockname()[1],
                f"{HOST}:80": plain.getsockname()[1],
                "127.0.0.1:4545": llm.port,
                "down.example.com:443": closed.getsockname()[1],
                "broken.example.com:443": closed.getsockname()[1],
            }
            nursery.cancel_scope.cancel()


@contextmanager
def _upstreams_in_thread(folder: Path) -> Iterator[dict[str, int]]:
    """The upstreams, served by a thread until the block ends."""
    ready = threading.Event()
    ports: dict[str, int] = {}
    ends: list[Callable[[], None]] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with _upstreams(folder) as found:
                ports.update(found)
                token = trio.lowlevel.current_trio_token()
                ends.append(lambda: token.run_sync_soon(scope.cancel))
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(main,), name="example-world", daemon=True)
    thread.start()
    if not ready.wait(_START_S):
        raise RuntimeError("the upstreams did not start")
    try:
        yield ports
    finally:
        ends[0]()
        thread.join(_START_S)


@contextmanager
def example_world(folder: Path) -> Iterator[Path]:
    """The socket of a runtime in the documentation's world, until the block ends."""
    path = folder / "runtime.sock"
    with _upstreams_in_thread(folder) as ports, (folder / "runtime.log").open("wb") as log:
        written = _CONFIGURATION.format(path=path, ca_file=folder / "ca.pem") + POLICIES
        file = folder / "vastar.toml"
        file.write_text(written)
        arguments = [str(file), json.dumps(ports)]
        process = subprocess.Popen(
            [sys.executable, "-c", _RUNTIME, *arguments],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdout is not None
        with leaks.keep(process.pid), process.stdout:
            try:
                line = process.stdout.readline()
                assert b"ready on" in line, (folder / "runtime.log").read_text()
                yield path
            finally:
                process.terminate()
                code = process.wait(_START_S)
        assert code == 0, (folder / "runtime.log").read_text()
