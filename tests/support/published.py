"""A runtime that speaks the published protocol and nothing else, as the published one does.

Threads and blocking sockets: one call after another on each connection, any type executed as a
call, no deadline obeyed, no field beyond the published nine. `faulty` changes what it answers.
"""

import http.client
import json
import socket
import socketserver
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vastar_client.wire import ErrorClass, ExecuteRequest, ExecuteResponse, MessageType
from vastar_client.wire.codec import MalformedError, decode_message, encode_message, one_buffer

Change = Callable[[ExecuteResponse], list[ExecuteResponse]]


def framed(answer: ExecuteResponse) -> bytes:
    """Its frame."""
    flatbuffer = b"".join(map(bytes, encode_message(answer)))
    return (len(flatbuffer) + 1).to_bytes(4) + bytes((answer.TYPE,)) + flatbuffer


def executed(request: ExecuteRequest) -> ExecuteResponse:
    """What the published runtime answers."""
    number, name = request.request_id, request.connector_name
    if name in {"db", "postgres", "mysql"}:
        text = "DB execution not yet implemented"
        return ExecuteResponse(number, ErrorClass.PERMANENT, text)
    if name != "http":
        return ExecuteResponse(number, ErrorClass.INVALID_REQUEST, f"Unknown connector: {name}")
    try:
        asked = json.loads(bytes(one_buffer(request.payload)))
        url = asked["url"]
    except (ValueError, KeyError, TypeError):
        text = "Missing required field: url"
        return ExecuteResponse(number, ErrorClass.INVALID_REQUEST, text)
    try:
        return ExecuteResponse(number, payload=_fetched(url, asked.get("timeout_ms")))
    except (OSError, http.client.HTTPException):
        text = "HTTP request failed: HTTP request failed"
        return ExecuteResponse(number, ErrorClass.TRANSIENT, text)


def _fetched(url: str, timeout_ms: int | None) -> bytes:
    parts = urllib.parse.urlsplit(url)
    asking = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=timeout_ms / 1000 if timeout_ms else None
    )
    try:
        asking.request("GET", parts.path)
        answer = asking.getresponse()
        fields = {"status_code": answer.status, "headers": {}, "body": answer.read().decode()}
        return json.dumps(fields).encode()
    finally:
        asking.close()


@contextmanager
def published(path: Path, change: Change = lambda answer: [answer]) -> Iterator[None]:
    """It listens at `path` while the block runs; each answer becomes what `change` makes of it."""

    class Handler(socketserver.StreamRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            while len(length := self.rfile.read(4)) == 4:
                frame = self.rfile.read(int.from_bytes(length))
                try:
                    message = decode_message(MessageType.EXECUTE_REQUEST, memoryview(frame)[1:])
                    assert isinstance(message, ExecuteRequest)
                    answer = executed(message)
                except MalformedError:
                    text = "Invalid FlatBuffers message"
                    answer = ExecuteResponse(0, ErrorClass.INVALID_REQUEST, text)
                self.wfile.write(b"".join(map(framed, change(answer))))

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """A fuzzer leaves in the middle of answers."""

    server = Server(str(path), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
