"""Run the command line for real: commands to their end, and `serve` as a process beside a test."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import planted
from vastar_client.wire import NEED_DATA, Connection, ExecuteRequest, Message, Role

ROOT = Path(__file__).parents[2]
_END_S = 20


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command: this process's without any VASTAR_ or proxy variable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VASTAR_", "NOTIFY_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def vastar(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "vastar_runtime", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    planted.refuse(done.stderr)
    return done


@contextmanager
def serving(
    *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A `serve` process that is ready; its ready line is the attribute `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vastar_runtime", "serve", *arguments],
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "ready on" in line, process.communicate(timeout=_END_S)[1]
        process.ready = line  # type: ignore[attr-defined]  # the one thing a test wants to know
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=_END_S)


def end(process: subprocess.Popen[str], *signals: signal.Signals) -> tuple[int, str]:
    """Send signals, wait for the end; the exit status and what was logged."""
    for number in signals:
        process.send_signal(number)
    _, logged = process.communicate(timeout=_END_S)
    planted.refuse(logged)
    return process.returncode, logged


@contextmanager
def silent_upstream() -> Iterator[tuple[str, Callable[[], None]]]:
    """The URL of a server that takes a request and never answers; a wait until it has one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_END_S)
        taken: list[socket.socket] = []

        def wait_taken() -> None:
            connection, _ = server.accept()
            taken.append(connection)
            connection.settimeout(_END_S)
            assert connection.recv(65_536).startswith(b"GET ")

        yield f"http://127.0.0.1:{server.getsockname()[1]}/", wait_taken
        for connection in taken:
            connection.close()


class Caller:
    """A blocking caller of a runtime, for one call at a time."""

    def __init__(self, socket_path: str) -> None:
        self._connection = Connection(Role.CLIENT)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_END_S)
        self._socket.connect(socket_path)

    def get(self, url: str, *, stream: bool = False) -> None:
        """Send a GET through connector `http`."""
        payload = b'{"url": "%b"}' % url.encode()
        request = ExecuteRequest(1, "acme", "http", "request", payload=payload, stream=stream)
        self._socket.sendall(b"".join(self._connection.send(request)))

    def receive(self) -> object:
        """The next message, or END_OF_STREAM."""
        while (event := self._connection.next_event()) is NEED_DATA:
            self._connection.receive_data(self._socket.recv(65_536))
        return event

    def close(self) -> None:
        self._socket.close()


@contextmanager
def fake_runtime(
    path: str, answer: Callable[[Message], Message | bytes | None]
) -> Iterator[list[Message]]:
    """A runtime at `path` that answers what `answer` says (None: closes); what it was sent."""
    heard: list[Message] = []

    def serve(accepted: socket.socket) -> None:
        connection = Connection(Role.RUNTIME)
        with accepted:
            accepted.settimeout(_END_S)
            while data := accepted.recv(65_536):
                connection.receive_data(data)
                while not isinstance(event := connection.next_event(), type(NEED_DATA)):
                    heard.append(event)
                    said = answer(event)
                    if said is None:
                        return
                    raw = said if isinstance(said, bytes) else b"".join(connection.send(said))
                    accepted.sendall(raw)

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            serve(accepted)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            Path(path).unlink()
