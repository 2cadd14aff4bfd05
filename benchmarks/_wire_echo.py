"""A server that speaks the runtime's frames and answers each call at once, in its own process.

    python -m benchmarks._wire_echo

Prints the path of its Unix socket when it is ready. It shows what a client can do, so it must not
be what it waits for: a call is answered with one frame that was encoded before, in which only the
request id is written anew; all calls that one read brings are answered in one write. Of a call only
the length of its frame, its type and its id are read. What it gives alone, under the raw load of
`_load`, is told beside every figure that was made with it.
"""

import gc
import selectors
import signal
import socket
import sys
import tempfile
from pathlib import Path
from struct import Struct
from typing import Final

from benchmarks._load import answer_fields
from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import (
    Connection,
    Disposition,
    ExecuteResponse,
    HttpResponse,
    MessageType,
    PayloadFormat,
    Role,
    encode_http_response,
)

__all__ = ["BEFORE", "BEHIND", "Peer", "main"]

_LENGTH: Final = Struct(">I")
_U64: Final = Struct("<Q")
_HEADER_BYTES: Final = 5
_MARK_ID: Final = 0x1122_3344_5566_7788


def _answer_parts() -> tuple[bytes, bytes]:
    """The frame of an answer, such as the runtime gives, before its id and behind it."""
    payload = encode_http_response(
        HttpResponse(
            200,
            [("content-type", "application/json"), ("content-length", str(len(SMALL_BODY)))],
            SMALL_BODY,
            "1.1",
            "http://127.0.0.1/small",
        )
    )
    message = ExecuteResponse(
        _MARK_ID,
        payload=payload,
        payload_format=PayloadFormat.NATIVE,
        duration_us=100,
        attempts=1,
        disposition=Disposition.COMPLETED,
    )
    before, _, behind = b"".join(Connection(Role.RUNTIME).send(message)).partition(
        _U64.pack(_MARK_ID)
    )
    return before, behind


BEFORE, BEHIND = _answer_parts()


class Peer:
    """One connection: what of a frame has come so far."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, received: bytes) -> bytes:
        """The answers to the calls that `received` completes.

        Raises:
            ValueError: a frame is no call.
        """
        data = self._rest + received
        at = 0
        answers: list[bytes] = []
        while len(data) - at >= _HEADER_BYTES:
            end = at + 4 + _LENGTH.unpack_from(data, at)[0]
            if end > len(data):
                break
            if data[at + 4] != MessageType.EXECUTE_REQUEST:
                raise ValueError(f"a frame of type {data[at + 4]}: this server only answers calls")
            # The id is the first slot of a call as it is of an answer; the other value is no class.
            answers += (BEFORE, _U64.pack(answer_fields(data, at + _HEADER_BYTES)[0]), BEHIND)
            at = end
        self._rest = data[at:]
        return b"".join(answers)


def serve(listener: socket.socket) -> None:
    """Answer for ever."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                accepted, _ = listener.accept()
                selector.register(accepted, selectors.EVENT_READ, (accepted, Peer()))
                continue
            sock, peer = key.data
            try:
                received = sock.recv(262_144)
                if received:
                    sock.sendall(peer.take(received))
                    continue
            except OSError:
                pass  # its client has left
            selector.unregister(sock)
            sock.close()


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def main() -> None:
    """Listen on a socket of its own and serve until a signal ends it."""
    signal.signal(signal.SIGTERM, _end)
    gc.disable()
    with (
        tempfile.TemporaryDirectory(prefix="vastar-echo-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = str(Path(folder, "s"))
        listener.bind(path)
        listener.listen(1024)
        print(path, flush=True)
        serve(listener)


if __name__ == "__main__":
    main()
