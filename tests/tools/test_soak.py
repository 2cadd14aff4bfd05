"""The soak from end to end: with deaths, and before a runtime that answers twice."""

import contextlib
import json
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import serving
from tools.soak._cli import main

_EVERY = 5
_ANSWER = 1


@pytest.mark.slow
def test_a_soak_with_deaths_passes(tmp_path, capsys):
    code = main(["--minutes", "0.4", "--workers", "2", "--recover-s", "60", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_bytes().splitlines()]
    done = {line["what"] for line in lines if line["type"] == "event"}
    assert {"kill runtime", "kill worker", "drain", "reload", "restart upstream", "quiet"} <= done
    assert {"kill client async", "kill client blocking"} <= done
    rests = [line for line in lines if line["type"] == "sample" and line["is_quiet"]]
    assert rests[-1]["runtime"]["in_flight"] == 0
    assert rests[-1]["calls"] > 100
    assert lines[-1] == {"type": "verdict", "broken": []}
    assert "recoveries: " in said.out


@pytest.mark.slow
def test_an_answer_that_comes_twice_is_found(tmp_path, capsys):
    with serving("--socket", str(tmp_path / "s"), "--log-level", "error") as runtime:
        assert runtime.stderr is not None
        with _answering_twice(tmp_path / "s", tmp_path / "relay"):
            flags = ["--minutes", "0.2", "--socket", str(tmp_path / "relay")]
            code = main([*flags, "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        assert code == 1, said.out
        assert "got 2 final frames" in said.err or "may not come here" in said.err, said.err
        assert runtime.poll() is None, "what was there before is left alive"


def test_bad_flags_and_no_runtime(tmp_path, capsys):
    for flags in (["--minutes", "0"], ["--socket", "/nowhere", "--workers", "2"]):
        with pytest.raises(SystemExit) as ended:
            main(flags)
        assert ended.value.code == 2
    flags = ["--socket", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert main(flags) == 2
    assert "no runtime answers" in capsys.readouterr().err


@contextlib.contextmanager
def _answering_twice(target: Path, path: Path) -> Iterator[None]:
    """A relay to the runtime at `target`: of unary answers each 5th is sent twice."""
    answers = 0
    lock = threading.Lock()

    def is_next() -> bool:
        nonlocal answers
        with lock:
            answers += 1
            return answers % _EVERY == 0

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as up:
                up.connect(str(target))
                pump = threading.Thread(target=_pump, args=(self.request, up), daemon=True)
                pump.start()
                with contextlib.suppress(OSError), up.makefile("rb") as frames:
                    while len(head := frames.read(4)) == 4:
                        frame = head + frames.read(struct.unpack(">I", head)[0])
                        twice = frame[4] == _ANSWER and is_next()
                        self.request.sendall(frame * (2 if twice else 1))
                with contextlib.suppress(OSError):
                    self.request.shutdown(socket.SHUT_RDWR)
                pump.join()

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
