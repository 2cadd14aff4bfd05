"""The benchmarks of streams work: their upstream, their load, and a short run of each."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks import _stream_load, large_download, streaming
from benchmarks._load import WrongAnswer
from benchmarks._report import Options
from benchmarks._stream_lines import STALLED_ID, Direct, RuntimeLine
from benchmarks._stream_load import BodySpec, EventsSpec
from benchmarks._stream_upstream import Peer, Upstream, event_chunk
from vastar_client import ConnectorException, ErrorClass
from vastar_client.testing import FakeRuntime, respond_stream
from vastar_client.wire import StreamEnd
from vastar_client.wire.limits import INITIAL_STREAM_WINDOW_BYTES


@contextmanager
def asked(path: str) -> Iterator[tuple[Upstream, Direct]]:
    """An upstream that has taken a request, and its reader; `turn` drives it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        upstream = Upstream(listener)
        direct = Direct(f"http://{host}:{port}")
        direct.ask(path)
        upstream.turn()  # accepts
        upstream.turn()  # reads
        try:
            yield upstream, direct
        finally:
            direct.socket.close()
            upstream.turn()  # sees it leave


def test_the_upstream_sends_events_and_says_when_they_were_due() -> None:
    with asked("/events/2/1/0") as (upstream, direct):
        (peer,) = upstream._peers
        while peer.events_left:
            upstream.turn()
        found, has_ended = b"", False
        while not has_ended:
            data, has_ended = direct.take()
            found += data
    events = [event.split(b" ")[:2] for event in found.split(b"data: ")[1:]]
    (first_due, first_sent), (second_due, _) = [tuple(map(int, event)) for event in events]
    assert second_due - first_due == 1000
    assert first_sent >= first_due


def test_the_upstream_makes_bodies_up_as_they_are_read() -> None:
    with asked("/bytes/5000000") as (upstream, direct):
        (peer,) = upstream._blocked
        assert peer.bytes_left > 0
        taken = 0
        direct.socket.setblocking(False)
        while taken < 5_000_000:
            try:
                data = direct.socket.recv(1_000_000)
            except BlockingIOError:
                upstream.turn()
                continue
            taken += len(data.partition(b"\r\n\r\n")[2] if data.startswith(b"HTTP") else data)
        assert taken == 5_000_000


def test_a_reader_that_left_is_forgotten() -> None:
    mine, theirs = socket.socketpair()
    theirs.close()
    peer = Peer(mine, unsent=b"x", events_left=3)
    with mine:
        assert not peer.flush()
    assert (peer.unsent, peer.events_left) == (b"", 0)


def test_latenesses_leave_out_the_beginning() -> None:
    found = _stream_load._Latenesses(skip=1)
    event = event_chunk(1_000_000, 2_000_000).partition(b"\r\n")[2]
    found.add(1, event + event, 5_000_000)
    found.add(2, event, 9_000_000)
    sample = found.sample(0.5)
    assert (sample.events, sample.p50_ms, sample.worst_ms) == (1, 3.0, 3.0)
    assert (sample.upstream_late_p99_ms, sample.cores) == (1.0, 0.5)


def _until_end(line: RuntimeLine) -> list[object]:
    frames: list[object] = []
    while not any(isinstance(frame, StreamEnd) for frame in frames):
        frames += line.take()
    return frames


def test_the_load_reads_under_credit_but_for_the_one_that_is_stalled() -> None:
    body = bytes(1_000_000)
    with FakeRuntime(lambda _: respond_stream([body])) as fake:
        line = RuntimeLine(fake.config.socket_path)
        line.ask(STALLED_ID, "http://x.test/")
        line.ask(1, "http://x.test/")
        _until_end(line)
        line.socket.close()
        stalled, read = fake.streams
        assert stalled.sent_bytes == INITIAL_STREAM_WINDOW_BYTES
        assert read.sent_bytes == len(body)


def test_the_load_refuses_a_wrong_answer() -> None:
    spec = BodySpec("by hand", "http://x.test/", 4, "")
    replies: list[Any] = [respond_stream([b"abc"]), ConnectorException("no", ErrorClass.PERMANENT)]
    with FakeRuntime(replies) as fake:
        path = fake.config.socket_path
        with pytest.raises(WrongAnswer, match="3 bytes came, and not 4"):
            _stream_load.download(BodySpec(spec.who, spec.url, 4, path))
        line = RuntimeLine(path)
        line.ask(1, spec.url)
        with pytest.raises(WrongAnswer, match="PERMANENT: no"):
            _until_end(line)
        fake.disconnect()
        with pytest.raises(WrongAnswer, match="closed the connection"):
            _until_end(line)
        line.socket.close()


def test_the_events_of_streams_are_spread_over_the_interval() -> None:
    spec = EventsSpec("http://x", streams=4, count=9, interval_us=1000, skip=0)
    assert [spec.path(number) for number in (0, 1, 3)] == [
        "/events/9/1000/1000",
        "/events/9/1000/1250",
        "/events/9/1000/1750",
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_the_streams_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STREAMS", 5)
    monkeypatch.setattr(streaming, "WARM_S", 0.1)
    report = streaming.run(Options(seconds=0.2, rounds=1))
    assert [row["setting"] for row in report.rows] == [each.name for each in streaming.SETTINGS]
    assert all(row["events"] == 5 * 10 for row in report.rows)
    assert len(report.claims) == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_the_downloads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_download, "DOWNLOAD_BYTES", 1_000_000)
    monkeypatch.setattr(large_download, "SLOW_BYTES", 2_000_000)
    monkeypatch.setattr(large_download, "STILL_S", 0.1)
    report = large_download.run(Options(rounds=1))
    assert [row["who"] for row in report.rows] == ["httpx", "runtime, client", "runtime, by hand"]
    assert len(report.claims) == 2
