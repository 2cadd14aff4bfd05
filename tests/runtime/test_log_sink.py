"""Whole lines or none, nobody is waited for, and what was lost is said."""

import errno
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from vastar_runtime import log_sink
from vastar_runtime.log_sink import LineSink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    # A pipe that nobody reads is drained without a writer's end in sight.
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def _drain(reader: int) -> bytes:
    read = b""
    while True:
        try:
            read += os.read(reader, 1 << 20)
        except BlockingIOError:
            return read


def test_a_full_pipe_drops_lines_and_says_how_many() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer)
    lines = 0
    while not sink.dropped_lines:
        sink.msg(b"x" * 4000)
        lines += 1
        assert lines < 10_000, "a pipe that nobody reads never filled"
    sink.msg(b"lost too")
    assert sink.dropped_lines == 2
    while len(os.read(reader, 1 << 20)) == 1 << 20:
        pass
    sink.msg(b"back")
    assert os.read(reader, 4096) == b'{"event":"log lines lost","lines":2}\nback\n'
    os.close(reader)
    sink.msg(b"nobody reads")
    assert sink.dropped_lines == 1
    os.close(writer)


def test_a_batch_larger_than_a_stopped_readers_pipe_does_not_wait(pipe: tuple[int, int]) -> None:
    """A pipe with room for one page is called writable: no write may ask it for more."""
    reader, writer = pipe
    sink = LineSink(writer)
    sink.hold_lines(lambda: None)
    line = b'{"event":"call","text":"%s"}' % (b"x" * 400)
    for _ in range(5000):
        sink.msg(line)
    sink.hold_lines(None)
    lost = sink.dropped_lines
    read = _drain(reader)
    assert read.endswith(b"\n")
    assert set(read.splitlines()) == {line}
    assert len(read.splitlines()) + lost == 5000
    assert lost > 4000
    sink.msg(line)
    assert _drain(reader) == b'{"event":"log lines lost","lines":%d}\n%s\n' % (lost, line)
    assert sink.dropped_lines == 0


def test_lines_of_a_batch_arrive_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    sink.hold_lines(lambda: None)
    lines = [b"%d " % number + b"x" * (number * 37 % 900) for number in range(100)]
    for line in lines:
        sink.msg(line)
    sink.flush()
    assert _drain(reader).splitlines() == lines
    assert sink.dropped_lines == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"exception": "Traceback: " + "\n" * 9000 + "ValueError: why", "connection": 3},
        {"text": "\u00e9" * 8000},
        {f"key-{number}": [number] * 100 for number in range(100)},
        {f"key-{number}": number for number in range(1000)},
    ],
)
def test_a_line_too_long_for_one_write_is_shortened_to_json(
    fields: dict[str, object], pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    event = {"timestamp": "2026-01-01T00:00:00Z", "level": "error", "event": "failed", **fields}
    sink.msg_at_once(json.dumps(event).encode())
    read = _drain(reader)
    assert len(read) <= select.PIPE_BUF
    (line,) = read.splitlines()
    said = json.loads(line)
    assert [said[key] for key in ("timestamp", "level", "event")] == list(event.values())[:3]
    assert said["shortened"] is True
    if "exception" in fields:
        assert said["exception"].endswith("ValueError: why")
        assert said["connection"] == 3
    assert sink.dropped_lines == 0


def test_a_long_console_line_is_cut_and_its_colour_ended(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    LineSink(writer).msg(b"\x1b[1mfailed" + "\u00e9".encode() * 8000)
    read = _drain(reader)
    assert len(read) <= select.PIPE_BUF
    assert read.decode().endswith("... (shortened)\x1b[0m\n")


@pytest.mark.parametrize("line", [b'{"a":"\xff' + b"x" * 9000 + b'"}', b'{"a":' + b"[" * 9000])
def test_a_long_line_that_only_begins_as_json_is_cut_too(
    line: bytes, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    LineSink(writer).msg(line)
    read = _drain(reader)
    assert len(read) <= select.PIPE_BUF
    assert b"... (shortened)" in read


def test_a_regular_file_gets_a_long_line_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    LineSink(fd).msg(b"x" * 9000)
    os.close(fd)
    assert path.read_bytes() == b"x" * 9000 + b"\n"


@pytest.mark.parametrize(
    ("room", "kept", "lost"),
    [(0, b"", 3), (4, b"one\n", 2), (6, b"one\ntw\n", 2), (7, b"one\ntwo\n", 2)],
)
def test_half_a_line_on_a_full_disk_is_ended_before_the_next(
    room: int, kept: bytes, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    write = os.write

    def write_until_full(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "no space left")
        written = write(fd, data[:room])
        room -= written
        return written

    sink = LineSink(fd)
    sink.hold_lines(lambda: None)
    for line in (b"one", b"two", b"three"):
        sink.msg(line)
    with monkeypatch.context() as patched:
        patched.setattr(log_sink.os, "write", write_until_full)  # type: ignore[attr-defined]
        sink.flush()
        assert sink.dropped_lines == lost
        sink.msg(b"lost too")
        sink.flush()
        assert sink.dropped_lines == lost + 1
    sink.msg(b"back")
    sink.flush()
    os.close(fd)
    notice = b'{"event":"log lines lost","lines":%d}\n' % (lost + 1)
    assert path.read_bytes() == kept + notice + b"back\n"
