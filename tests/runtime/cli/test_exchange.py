"""One call under credit: nobody is sent more than was granted, and what is taken slowly waits."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import fake_runtime
from vastar_client.testing import FakeRuntime, respond, respond_stream
from vastar_client.wire import (
    Buffer,
    Cancel,
    Connection,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    HttpRequest,
    KeepAlive,
    KeyValues,
    Message,
    PayloadFormat,
    ProtocolError,
    Role,
    StreamChunk,
    StreamEnd,
    StreamStart,
    encode_http_request,
)
from vastar_client.wire.limits import INITIAL_STREAM_WINDOW_BYTES
from vastar_client.wire.windows import GROWN_STREAM_WINDOW_BYTES
from vastar_runtime.cli._exchange import BodyFile, Ending, Exchange
from vastar_runtime.cli._line import ControlError, Line
from vastar_runtime.config import UnixAddress


class Kept:
    """A taker that keeps what it gets; `on_data` may object."""

    def __init__(self, on_data: Callable[[], object] = lambda: None) -> None:
        self.heads: list[tuple[int, KeyValues]] = []
        self.body = b""
        self.ticks = 0
        self._on_data = on_data

    def head(self, status_code: int, headers: KeyValues, http_version: str | None) -> None:
        self.heads.append((status_code, headers))

    def data(self, piece: Buffer) -> None:
        self.body += piece
        self._on_data()

    def tick(self) -> None:
        self.ticks += 1


def request(*, stream: bool = True, body_follows: bool = False) -> ExecuteRequest:
    return ExecuteRequest(
        1,
        "acme",
        "http",
        "request",
        payload=encode_http_request(HttpRequest("http://x.test/", "POST")),
        payload_format=PayloadFormat.NATIVE,
        stream=stream,
        body_follows=body_follows,
    )


@contextmanager
def line_to(path: str) -> Iterator[Line]:
    line = Line(UnixAddress(path), 5)
    try:
        yield line
    finally:
        line.close()


def exchange(
    fake: FakeRuntime, taker: Kept, made: ExecuteRequest, body: BodyFile | None = None
) -> Ending:
    with line_to(fake.config.socket_path) as line:
        return Exchange(line, made, body, taker).run(20)


def test_what_is_not_taken_is_not_granted() -> None:
    """While the taker is at it, no more than a window has come for it."""
    ahead: list[int] = []
    with FakeRuntime([respond_stream([bytes(1_000_000)])]) as fake:
        taker = Kept(lambda: ahead.append(fake.streams[0].sent_bytes - len(taker.body)))
        ending = exchange(fake, taker, request())
    assert len(taker.body) == ending.body_bytes == 1_000_000
    assert max(ahead) <= GROWN_STREAM_WINDOW_BYTES
    assert ending.status_code == 200
    assert ending.head_s is not None
    assert ending.first_byte_s is not None
    assert ending.head_s <= ending.first_byte_s <= ending.total_s


def test_the_end_of_a_failed_taker_is_a_cancel() -> None:
    def refuse() -> None:
        raise OSError("full")

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65_536)

    with FakeRuntime([respond_stream(endless())]) as fake:
        with pytest.raises(OSError, match="full"):
            exchange(fake, Kept(refuse), request())
        assert fake.cancelled == [1]


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_goes_out_under_credit(stream: bool) -> None:
    """The fake's windows break the connection where more is sent than it has granted."""
    data = os.urandom(2_500_000)
    with tempfile.TemporaryFile() as file, FakeRuntime([respond(body=b"ok")]) as fake:
        file.write(data)
        file.seek(0)
        taker = Kept()
        body = BodyFile(file.fileno(), 2_400_000)
        ending = exchange(fake, taker, request(stream=stream, body_follows=True), body)
    assert fake.requests[0].body == data[:2_400_000]
    assert taker.body == b"ok"
    assert ending.error_class is ErrorClass.SUCCESS


def test_an_upload_that_is_not_read_waits_and_the_answer_ends_it() -> None:
    with tempfile.TemporaryFile() as file, FakeRuntime([respond_stream([b"early"])]) as fake:
        fake.reads_bodies = fake.waits_for_bodies = False
        file.write(bytes(1_000_000))
        file.seek(0)
        taker = Kept()
        exchange(fake, taker, request(body_follows=True), BodyFile(file.fileno()))
    assert taker.body == b"early"
    assert len(fake.uploads[0].data) <= INITIAL_STREAM_WINDOW_BYTES


def test_a_body_file_ends_by_its_length_or_by_itself() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"abcdef")
        file.seek(0)
        known = BodyFile(file.fileno(), 4)
        assert [known.read(3), known.read(3)] == [(b"abc", False), (b"d", True)]
        unknown = BodyFile(file.fileno())
        assert [unknown.read(9), unknown.read(9)] == [(b"ef", False), (b"", True)]
        cut = BodyFile(file.fileno(), 5)
        assert cut.read(9) == (b"", True)


def _answers(*messages: Message) -> Callable[[Message], Message]:
    left = iter(messages)
    return lambda _: next(left)


def end(**fields: object) -> StreamEnd:
    return StreamEnd(1, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (StreamEnd(0, ErrorClass.INVALID_REQUEST, "id 0"), ErrorClass.INVALID_REQUEST),
        (ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "bad"), ErrorClass.INVALID_REQUEST),
        (ExecuteResponse(1, ErrorClass.TRANSIENT, "draining"), ErrorClass.TRANSIENT),
    ],
)
def test_failures_of_either_form_end_it(
    tmp_path: Path, answer: Message, expected: ErrorClass
) -> None:
    path = str(tmp_path / "r.sock")
    taker = Kept()
    with fake_runtime(path, _answers(answer)), line_to(path) as line:
        ending = Exchange(line, request(), None, taker).run(20)
    assert ending.error_class is expected
    assert taker.heads == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ExecuteResponse(1, payload=b"{}"), "does not speak the native payload format"),
        (
            ExecuteResponse(1, payload=b"xx", payload_format=PayloadFormat.NATIVE),
            "a bad answer",
        ),
    ],
)
def test_answers_that_cannot_be_read(tmp_path: Path, answer: Message, says: str) -> None:
    path = str(tmp_path / "r.sock")
    with (
        fake_runtime(path, _answers(answer)),
        line_to(path) as line,
        pytest.raises(ControlError, match=says),
    ):
        Exchange(line, request(), None, Kept()).run(20)


def test_signs_of_life_and_other_calls_are_passed_over(tmp_path: Path) -> None:
    frames: list[Message] = [
        KeepAlive(1),
        StreamChunk(9, 0, b"no"),
        StreamStart(1, 204),
        StreamChunk(1, 0),
    ]
    path = str(tmp_path / "r.sock")

    def answer(_: Message) -> bytes:
        peer = Connection(Role.RUNTIME)
        peer.receive_data(b"".join(Connection(Role.CLIENT).send(request())))
        peer.next_event()
        done = end(disposition=Disposition.COMPLETED, attempts=2)
        return b"".join(buffer for frame in [*frames, done] for buffer in peer.send(frame))

    taker = Kept()
    with fake_runtime(path, answer), line_to(path) as line:
        ending = Exchange(line, request(), None, taker).run(20)
    assert (taker.heads, taker.body) == ([(204, ())], b"")
    assert (ending.attempts, ending.first_byte_s) == (2, None)


def test_a_runtime_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    clock = map(float, itertools.count())
    with (
        fake_runtime(path, lambda _: end(error_class=ErrorClass.PERMANENT)),
        line_to(path) as line,
        pytest.raises(TimeoutError, match="no answer from the runtime in 0 s"),
    ):
        Exchange(line, request(), None, Kept(), lambda: next(clock)).run(0)


def test_a_runtime_that_sends_more_than_was_granted_is_left(tmp_path: Path) -> None:
    """Also when it then hangs up at the Cancel."""

    def answer(message: Message) -> bytes | None:
        if not isinstance(message, ExecuteRequest):
            return None
        peer = Connection(Role.RUNTIME)
        peer.receive_data(b"".join(Connection(Role.CLIENT).send(request())))
        peer.next_event()
        frames: list[Message] = [StreamStart(1, 200), StreamChunk(1, 0, bytes(65_537))]
        return b"".join(buffer for frame in frames for buffer in peer.send(frame))

    path = str(tmp_path / "r.sock")
    with (
        fake_runtime(path, answer) as heard,
        line_to(path) as line,
        pytest.raises(ProtocolError, match="65537 bytes of stream data came"),
    ):
        Exchange(line, request(), None, Kept()).run(20)
    assert isinstance(heard[-1], Cancel)


def test_what_has_ended_is_not_cancelled() -> None:
    def refuse() -> None:
        raise BrokenPipeError

    with FakeRuntime([respond(body=b"whole")]) as fake:
        with pytest.raises(BrokenPipeError):
            exchange(fake, Kept(refuse), request(stream=False))
        with line_to(fake.config.socket_path) as line:
            line.put(HealthCheck())
            line.receive(HealthResponse, 5)
        assert fake.cancelled == []
