"""`call` as its user sees it: what is asked, what is printed, what it exits with."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vastar_client.errors import ConnectorException
from vastar_client.testing import (
    HOLD,
    FakeRuntime,
    respond,
    respond_events,
    respond_stream,
)
from vastar_client.wire import Disposition, ErrorClass, RemoteProtocolError
from vastar_runtime.cli import main
from vastar_runtime.cli._call import timing
from vastar_runtime.cli._exchange import Ending
from vastar_runtime.cli._taking import Output

URL = "http://upstream.test/x"


def run(fake: FakeRuntime, *arguments: str) -> int:
    return main(["call", "--socket", fake.config.socket_path, *arguments])


@contextmanager
def stdin_of(monkeypatch: pytest.MonkeyPatch, fd: int) -> Iterator[None]:
    """Standard input from a descriptor."""
    with os.fdopen(fd, "rb") as file, monkeypatch.context() as patched:
        patched.setattr("sys.stdin", file)
        yield


def test_a_call_prints_the_body_and_nothing_else(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with FakeRuntime([respond(body=b"\0\xffbody")]) as fake:
        assert run(fake, URL) == 0
    assert tuple(capfdbinary.readouterr()) == (b"\0\xffbody", b"")
    (request,) = fake.requests
    assert (request.method, request.url, request.body) == ("GET", URL, None)
    (message,) = fake.messages
    assert (message.tenant_id, message.workspace_id, message.deadline_at_ms) == ("default", None, 0)
    assert not message.stream


def test_every_option_of_the_request() -> None:
    with FakeRuntime([respond()]) as fake:
        options = ["-X", "PUT", "-H", "A: 1", "-H", "b:2", "-H", "Content-Type: text/plain"]
        options += ["-d", "höh", "--tenant", "acme", "--workspace", "w", "--timeout-s", "5"]
        assert run(fake, *options, "--idempotency-key", "k1", URL) == 0
    (request,), (message,) = fake.requests, fake.messages
    assert (request.method, request.body) == ("PUT", "höh".encode())
    assert request.header_pairs() == [("A", "1"), ("b", "2"), ("Content-Type", "text/plain")]
    assert (message.tenant_id, message.workspace_id) == ("acme", "w")
    assert message.idempotency_key == "k1"
    assert message.deadline_at_ms > 0


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("-d", [("content-type", "application/x-www-form-urlencoded")]),
        ("--json", [("content-type", "application/json"), ("accept", "application/json")]),
    ],
)
def test_data_makes_it_a_post_of_its_type(option: str, expected: list[tuple[str, str]]) -> None:
    with FakeRuntime([respond()]) as fake:
        assert run(fake, option, "[1]", URL) == 0
    (request,) = fake.requests
    assert (request.method, request.body) == ("POST", b"[1]")
    assert request.header_pairs() == expected


def test_a_small_file_goes_inside_the_request(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"from a file\n")
    with FakeRuntime([respond()]) as fake:
        assert run(fake, "-d", f"@{tmp_path / 'f'}", URL) == 0
    assert fake.requests[0].body == b"from a file\n"
    assert not fake.messages[0].body_follows


@pytest.mark.parametrize("stream", [False, True])
def test_a_large_file_is_streamed_with_its_length(tmp_path: Path, stream: bool) -> None:
    data = os.urandom(1_048_577) * 2
    (tmp_path / "f").write_bytes(data)
    with FakeRuntime([respond()]) as fake:
        assert run(fake, "-d", f"@{tmp_path / 'f'}", URL, *["--stream"] * stream) == 0
    assert fake.requests[0].body == data
    assert ("content-length", str(len(data))) in fake.requests[0].header_pairs()
    assert fake.messages[0].body_follows
    assert fake.messages[0].stream is stream


def test_standard_input_is_streamed_without_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    data = os.urandom(300_000)

    def write() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    with stdin_of(monkeypatch, reader), FakeRuntime([respond()]) as fake:
        assert run(fake, "--json", "@-", URL) == 0
    thread.join()
    assert fake.requests[0].body == data
    assert "content-length" not in dict(fake.requests[0].header_pairs())


def test_standard_input_from_a_file_is_read_from_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    os.lseek(fd, 2, os.SEEK_SET)
    with stdin_of(monkeypatch, fd), FakeRuntime([respond()]) as fake:
        assert run(fake, "-d", "@-", URL) == 0
    assert fake.requests[0].body == b"cdef"


def test_a_stream_is_printed_to_its_end(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    data = os.urandom(1_000_000)
    with FakeRuntime([respond_stream([data, b"end"])]) as fake:
        assert run(fake, "--stream", URL) == 0
    assert capfdbinary.readouterr().out == data + b"end"
    assert fake.messages[0].stream


def test_each_piece_is_out_before_the_next_one_comes(tmp_path: Path) -> None:
    """The first event is there while the second has yet to be made."""
    os.mkfifo(tmp_path / "pipe")
    seen: list[bytes] = []
    with FakeRuntime([respond_events(["one", HOLD])]) as fake:

        def read() -> None:
            with (tmp_path / "pipe").open("rb", buffering=0) as pipe:
                seen.append(pipe.read(11))
                fake.streams[0].end()
                seen.append(pipe.read(1))

        thread = threading.Thread(target=read)
        thread.start()
        assert run(fake, "-o", str(tmp_path / "pipe"), URL) == 0
        thread.join()
    assert seen == [b"data: one\n\n", b""]


def test_the_head_is_printed_on_request(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    headers = [("a", "1"), ("set-cookie", "x"), ("set-cookie", "y")]
    replies: list[Any] = [
        respond(body="b", headers=headers),
        respond_stream(["c"], status_code=299),
    ]
    with FakeRuntime(replies) as fake:
        assert run(fake, "-i", URL) == 0
        whole = capfdbinary.readouterr().out
        assert run(fake, "-i", "--stream", URL) == 0
    assert whole.startswith(b"HTTP")
    assert whole.endswith(b" 200 OK\r\na: 1\r\nset-cookie: x\r\nset-cookie: y\r\n\r\nb")
    assert capfdbinary.readouterr().out == b"HTTP 299\r\n\r\nc"


def test_a_file_gets_the_body_and_the_terminal_the_head(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"what was there before, and longer")
    with FakeRuntime([respond_stream([b"new"])]) as fake:
        assert run(fake, "-i", "-o", str(file), URL) == 0
    assert file.read_bytes() == b"new"
    assert capfd.readouterr() == ("HTTP 200 OK\r\n\r\n", "")
    with FakeRuntime([respond_stream([b"new"])]) as fake:
        assert run(fake, "-o", "-", URL) == 0
    assert capfd.readouterr() == ("new", "")


def test_a_call_that_never_began_leaves_files_alone(tmp_path: Path) -> None:
    file, new = tmp_path / "f", tmp_path / "new"
    file.write_bytes(b"before")
    error = ConnectorException("refused", ErrorClass.TRANSIENT)
    with FakeRuntime([error, error]) as fake:
        assert run(fake, "-o", str(file), URL) == 7
        assert run(fake, "-o", str(new), URL) == 7
    assert file.read_bytes() == b"before"
    assert not new.exists()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error_class", "status"),
    [
        (ErrorClass.TRANSIENT, 7),
        (ErrorClass.PERMANENT, 8),
        (ErrorClass.RATE_LIMITED, 9),
        (ErrorClass.TIMEOUT, 5),
        (ErrorClass.INVALID_REQUEST, 10),
    ],
)
def test_failures_by_class(
    error_class: ErrorClass, status: int, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    error = ConnectorException(
        "so it was", error_class, disposition=Disposition.NOT_SENT, retry_after_ms=1500
    )
    with FakeRuntime([error]) as fake:
        assert run(fake, URL, *["--stream"] * stream) == status
    said = f"vastar: so it was; come back in 1.5 s ({error_class.name}, NOT_SENT)\n"
    assert capfd.readouterr() == ("", said)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_upstream_is_an_answer_with_a_status_of_its_own(
    stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with FakeRuntime([respond(404, body="no such thing")]) as fake:
        assert run(fake, URL, *["--stream"] * stream) == 11
    assert capfd.readouterr() == ("no such thing", "")


def test_an_answer_that_breaks_off_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    cut = ConnectorException("cut", ErrorClass.TRANSIENT, disposition=Disposition.RESPONSE_STARTED)
    with FakeRuntime([respond_stream([b"some", cut])]) as fake:
        assert run(fake, "--stream", URL) == 7
    out, err = capfd.readouterr()
    assert out == "some"
    words = "vastar: cut; 4 bytes of the answer had come (TRANSIENT, RESPONSE_STARTED)\n"
    assert err == words


def test_an_answer_that_fits_no_frame_says_how_to_get_it(capfd: pytest.CaptureFixture[str]) -> None:
    words = "response exceeds the frame limit of 10485760 bytes: use streaming"
    with FakeRuntime([ConnectorException(words, ErrorClass.PERMANENT)]) as fake:
        assert run(fake, URL) == 8
    assert f"{words} (add --stream, or --output FILE)" in capfd.readouterr().err


def test_without_a_runtime_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", "--socket", f"{tmp_path}/no ne", URL]) == 3
    assert f"start one with: vastar start --socket '{tmp_path}/no ne'" in capsys.readouterr().err


def test_a_runtime_that_goes_away_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with FakeRuntime([HOLD]) as fake:
        leaving = threading.Timer(0, lambda: _disconnect(fake))
        leaving.start()
        assert run(fake, URL) == 1
        leaving.join()
    assert "closed the connection without an answer" in capfd.readouterr().err


def _disconnect(fake: FakeRuntime) -> None:
    while not fake.held:
        threading.Event().wait(0.001)
    fake.disconnect()


@pytest.mark.parametrize("stream", [False, True])
def test_ctrl_c_cancels_the_call(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Output, "tick", interrupt)
    with FakeRuntime([HOLD]) as fake:
        assert run(fake, URL, *["--stream"] * stream) == 130
        assert fake.cancelled == [1]


def test_a_reader_that_leaves_cancels_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Output, "data", refuse)
    with FakeRuntime([respond_stream(_endless())]) as fake:
        assert run(fake, "--stream", URL) == 1
        assert fake.cancelled == [1]


def _endless() -> Iterator[bytes]:
    while True:
        yield bytes(65_536)


def test_a_full_disk_is_told_with_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Output, "data", refuse)
    with FakeRuntime([respond_stream(_endless())]) as fake:
        assert run(fake, "-o", str(tmp_path / "f"), URL) == 1
        assert fake.cancelled == [1]
    assert capfd.readouterr().err == "vastar: no space left on device\n"


@pytest.mark.parametrize("option", ["-o", "-d@"])
def test_files_that_cannot_be_used_are_named(
    option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with FakeRuntime() as fake:
        path = str(tmp_path / "no" / "f") if option == "-o" else str(tmp_path)
        given = [option, path] if option == "-o" else [f"{option}{path}"]
        assert run(fake, *given, URL) == 1
    assert capfd.readouterr().err.startswith(f"vastar: {path}: ")
    assert fake.messages == []


def test_what_is_no_text_is_refused_unquoted(capfd: pytest.CaptureFixture[str]) -> None:
    with FakeRuntime() as fake:
        assert run(fake, "-H", "authorization: \udcff", URL) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert fake.messages == []


def test_a_runtime_that_is_stuck_is_left(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vastar_runtime.cli._call._GRACE_S", 0.0)
    with FakeRuntime([HOLD], keeps_deadlines=False) as fake:
        assert run(fake, "--timeout-s", "0.001", URL) == 5
        assert fake.cancelled == [1]
    assert "no answer from the runtime in" in capfd.readouterr().err


def test_verbose_says_where_the_time_went(capfd: pytest.CaptureFixture[str]) -> None:
    replies: list[Any] = [
        respond(attempts=2, refused_by="retry_quota:tenant"),
        respond_stream(["abc"], attempts=3, refused_by="circuit_breaker:tenant"),
    ]
    with FakeRuntime(replies) as fake:
        assert run(fake, "-v", URL, "-H", "authorization: Bearer s3cret") == 0
        err = capfd.readouterr().err
        told = dict(line.split(maxsplit=1) for line in err.splitlines())
        assert told["attempts"] == "2"
        assert "retry_quota:tenant" in told["refused"]
        assert "s3cret" not in err
        assert run(fake, "-v", "--stream", URL) == 0
    told = dict(line.split(maxsplit=1) for line in capfd.readouterr().err.splitlines())
    assert told["body"] == "3 bytes"
    assert told["first"].startswith("byte")
    assert (told["attempts"], told["queued"], told["backoff"]) == ("3", "0.0 ms", "0.0 ms")
    assert told["refused"] == "by    circuit_breaker:tenant"


def test_the_lines_of_verbose() -> None:
    ending = Ending(
        error_class=ErrorClass.SUCCESS,
        message=None,
        disposition=Disposition.COMPLETED,
        attempts=1,
        duration_us=3000,
        retry_after_ms=0,
        status_code=200,
        body_bytes=7,
        total_s=0.004,
        head_s=0.002,
        first_byte_s=0.0025,
        queued_us=100,
        backoff_us=0,
    )
    assert list(timing(ending)) == [
        ("status", "200"),
        ("attempts", "1"),
        ("queued", "0.1 ms"),
        ("backoff", "0.0 ms"),
        ("head", "2.0 ms"),
        ("first byte", "2.5 ms"),
        ("total", "4.0 ms (3.0 ms in the runtime)"),
        ("body", "7 bytes"),
        ("outcome", "SUCCESS"),
        ("disposition", "COMPLETED"),
    ]


def test_a_runtime_that_breaks_the_protocol_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise RemoteProtocolError("too much came")

    monkeypatch.setattr(Output, "data", refuse)
    with FakeRuntime([respond_stream(_endless())]) as fake:
        assert run(fake, "--stream", URL) == 1
        address = fake.config.socket_path
    assert capfd.readouterr().err == f"vastar: unix:{address}: too much came\n"


def test_an_answer_without_a_body_is_well(capfd: pytest.CaptureFixture[str]) -> None:
    with FakeRuntime([respond(204)]) as fake:
        assert run(fake, URL) == 0
    assert capfd.readouterr() == ("", "")
