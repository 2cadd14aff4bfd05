"""CPU time that the transport spends on one keep-alive request, at 1, 16 and 128 concurrent.

The upstream is a raw echo in a process of its own: it answers each request head with a fixed small
response, so that what is measured is the transport, with Trio, its system calls and the
interpreter, and nothing else. Run: `python benchmarks/transport_cost.py [--requests N] [--tls]`.

Peer: none beside it; the row of 1 at once is what those of 16 and 128 are held against.
Shape: closed loops of so many tasks, each with one request in flight, on connections that are kept.
Cheating would be: an upstream in the same process, answers that nobody reads to their end, or
connections opened before the counting for one row only.
"""

import argparse
import multiprocessing
import multiprocessing.synchronize
import resource
import selectors
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path

import trio

from vastar_runtime.transport import (
    HttpTransport,
    Origin,
    Progress,
    TlsSettings,
    TransportSettings,
    UpstreamRequest,
)

_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 33\r\n"
    b"Server: echo\r\n\r\n" + b'{"ok": true, "msg": "hello worl"}'
)
_SCOPE = ("default", "bench")
_CONCURRENT = (1, 16, 128)


def serve(listener: socket.socket, files: tuple[str, str] | None) -> None:
    """Answer every request head on every connection, until killed."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    accepted = context.wrap_socket(accepted, server_side=True)
                selector.register(accepted, selectors.EVENT_READ)
                continue
            data = sock.recv(65536)
            if data:
                sock.send(_RESPONSE * data.count(b"\r\n\r\n"))
            else:
                selector.unregister(sock)
                sock.close()


async def _worker(transport: HttpTransport, request: UpstreamRequest, count: int) -> None:
    for _ in range(count):
        async with await transport.request(_SCOPE, request, Progress()) as response:
            body = await response.read_all(1_000_000)
        assert response.status == 200 and len(body) == 33  # noqa: PLR2004, PT018 - what serve sends


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(origin: Origin, settings: TransportSettings, requests: int) -> None:
    """Print one line for each number of concurrent callers."""
    request = UpstreamRequest(
        method=b"GET",
        origin=origin,
        target=b"/small",
        headers=[
            (b"host", origin.authority.encode()),
            (b"user-agent", b"vastar-runtime"),
            (b"accept", b"*/*"),
        ],
    )
    transport = HttpTransport(settings, environ={})
    print(f"{'concurrent':>10} {'CPU us/request':>15} {'requests/s':>11}")
    for concurrent in _CONCURRENT:
        for count in (max(200, concurrent * 4), requests):  # the first opens the connections
            began_s, began_cpu_s = time.perf_counter(), _cpu_s()
            async with trio.open_nursery() as nursery:
                for _ in range(concurrent):
                    nursery.start_soon(_worker, transport, request, count // concurrent)
            wall_s, cpu_s = time.perf_counter() - began_s, _cpu_s() - began_cpu_s
        done = count // concurrent * concurrent
        print(f"{concurrent:>10} {cpu_s / done * 1e6:>15.1f} {done / wall_s:>11.0f}")
    await transport.aclose()


def main() -> int:
    """Start the upstream, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    host, port = listener.getsockname()
    with tempfile.TemporaryDirectory() as folder:
        files = _certificate(Path(folder), host) if options.tls else None
        server = multiprocessing.get_context("fork").Process(
            target=serve, args=(listener, files and files[:2]), daemon=True
        )
        server.start()
        try:
            settings = TransportSettings(tls=TlsSettings(ca_file=files[2] if files else None))
            origin = Origin("https" if files else "http", host, port)
            trio.run(measure, origin, settings, options.requests)
        finally:
            server.kill()
            server.join()
            listener.close()
    return 0


def _certificate(folder: Path, host: str) -> tuple[str, str, str]:
    import trustme  # noqa: PLC0415 - only with --tls

    authority = trustme.CA()
    issued = authority.issue_cert(host)
    paths = tuple(str(folder / name) for name in ("chain.pem", "key.pem", "ca.pem"))
    issued.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(paths[0], append=number > 0)
    return paths[0], paths[1], paths[2]


if __name__ == "__main__":
    sys.exit(main())
