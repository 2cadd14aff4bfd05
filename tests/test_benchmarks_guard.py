"""CI's short form: its peer does the same calls, and its claims are of ratios alone."""

import sys
from pathlib import Path

import pytest
import trio

from benchmarks import __main__ as command
from benchmarks import _bare_runtime, ci_guard
from benchmarks._load import Link, Template, WrongAnswer
from benchmarks._report import Claim, Options, Report
from benchmarks._upstream import SMALL_RESPONSE


async def upstream(listener: trio.SocketListener, answer: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async for _ in stream:
            await stream.send_all(answer)

    await trio.serve_listeners(serve, [listener])


async def test_the_peer_answers_each_call_as_the_upstream_does(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    upstreams = _bare_runtime.Upstreams()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream, listener, SMALL_RESPONSE)
        await nursery.start(_bare_runtime._accept, path, upstreams)
        link = Link(path, Template(f"http://127.0.0.1:{port}/small"), 3)
        answered: list[int] = []
        with link.socket:
            link.ask([1, 2, 3])
            while len(answered) < 3:
                await trio.lowlevel.wait_readable(link.socket)
                answered += link.take([])
        nursery.cancel_scope.cancel()
    upstreams.close()
    assert sorted(answered) == [1, 2, 3]


async def test_the_peer_takes_no_other_answer() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream, listener, SMALL_RESPONSE.replace(b"true", b"fals"))
        with pytest.raises(WrongAnswer):
            await _bare_runtime.Upstreams().get("127.0.0.1", port, b"/small")
        nursery.cancel_scope.cancel()


def test_the_short_form_is_the_guard_and_fails_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = [Claim("ratio", 1.0, 2.0, at_most=True)]
    monkeypatch.setattr(ci_guard, "run", lambda _options: Report("ci_guard", [], claims))
    assert command.main(["--ci"]) == 0
    claims.append(Claim("ratio", 3.0, 2.0, at_most=True))
    assert command.main(["--ci"]) == 1


def test_every_shape_has_its_ratio() -> None:
    assert set(ci_guard.MEASURED_RATIO) == set(ci_guard._SHAPES)
    assert ci_guard.LARGE > 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_the_guard_runs() -> None:
    report = ci_guard.run(Options(seconds=0.2, rounds=1))
    assert [row["who"] for row in report.rows] == ["runtime", "bare peer"] * 2
    assert len(report.claims) == 2
