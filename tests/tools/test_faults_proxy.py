"""The fault proxy: each fault does what it says, in virtual time, and the same again for a seed."""

import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from tests.support.commands import ROOT, environment
from tools.faults import (
    BadFaultError,
    Direction,
    FaultProxy,
    Happening,
    Plan,
    proxied,
)
from tools.faults._cli import main

Stream = trio.abc.HalfCloseableStream


@asynccontextmanager
async def through(text: str, **options: float) -> AsyncIterator[tuple[FaultProxy, Stream, Stream]]:
    """A proxy with that plan, and both ends of a connection through it."""
    far, near = trio.testing.memory_stream_pair()

    async def connect() -> Stream:
        return near

    proxy = FaultProxy(connect, Plan.parse(text, **options))  # type: ignore[arg-type]
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.serve_stream, theirs)
        yield proxy, ours, far
        nursery.cancel_scope.cancel()


async def everything(stream: Stream) -> tuple[float, bytes]:
    """All to the end, and when that was."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return trio.current_time(), data


async def test_without_faults_bytes_and_ends_pass(autojump_clock):
    async with through("") as (proxy, ours, far):
        await ours.send_all(b"question")
        await ours.send_eof()
        assert await everything(far) == (0, b"question")
        await far.send_all(b"answer")
        await far.aclose()
        assert await everything(ours) == (0, b"answer")
        assert proxy.happenings == []
        assert proxy.connections == 1


async def test_latency_delays_and_does_not_slow(autojump_clock):
    async with through("latency=0.5") as (_, ours, far):
        for piece in (b"a", b"b", b"c"):
            await ours.send_all(piece)
            await trio.sleep(0.1)
        await ours.send_eof()
        at_s, data = await everything(far)
        assert data == b"abc"
        assert at_s == pytest.approx(0.7)


async def test_jitter_keeps_the_order(autojump_clock):
    async with through("jitter=1") as (_, ours, far):
        for number in range(50):
            await ours.send_all(bytes([number]))
            await trio.sleep(0.001)
        await ours.send_eof()
        at_s, data = await everything(far)
        assert data == bytes(range(50))
        assert 0.05 < at_s < 1.06


async def test_bandwidth_of_one_direction(autojump_clock):
    async with through("up:bandwidth=1k") as (_, ours, far):
        await ours.send_all(bytes(3000))
        await ours.send_eof()
        await far.send_all(bytes(3000))
        await far.send_eof()
        assert (await everything(ours))[0] == 0
        assert (await everything(far))[0] == pytest.approx(3)


async def test_slices_are_small_and_lose_nothing(autojump_clock):
    text = bytes(range(256))
    async with through("slice=7 bandwidth=1k") as (_, ours, far):
        await ours.send_all(text)
        await ours.send_eof()
        pieces = []
        while piece := await far.receive_some():
            pieces.append(piece)
        assert b"".join(pieces) == text
        assert max(map(len, pieces)) <= 7
        assert len(set(map(len, pieces))) > 3


async def test_a_bit_of_a_byte_is_turned_over(autojump_clock):
    async with through("up:corrupt@3 slice=2") as (proxy, ours, far):
        await ours.send_all(bytes(8))
        await ours.send_eof()
        _, data = await everything(far)
        assert [at for at, byte in enumerate(data) if byte] == [3]
        assert data[3].bit_count() == 1
        assert proxy.happenings == [Happening(1, Direction.UP, "corrupt", 3)]


async def test_a_share_of_the_bytes_is_spoiled(autojump_clock):
    async with through("corrupt=0.1") as (proxy, ours, far):
        await ours.send_all(bytes(10_000))
        await ours.send_eof()
        _, data = await everything(far)
        assert 800 < sum(byte > 0 for byte in data) < 1200
        assert [at for at, byte in enumerate(data) if byte] == [
            h.at_bytes for h in proxy.happenings
        ]


@pytest.mark.parametrize("kind", ["reset", "close"])
async def test_an_end_at_a_byte_ends_both_sides(kind, autojump_clock):
    async with through(f"up:{kind}@5") as (proxy, ours, far):
        await ours.send_all(b"0123456789")
        assert (await everything(far))[1] == b"01234"
        assert (await everything(ours))[1] == b""
        assert proxy.happenings == [Happening(1, Direction.UP, kind, 5)]


async def test_an_end_at_byte_0_and_in_time(autojump_clock):
    async with through("down:close@0") as (_, ours, _far):
        assert await everything(ours) == (0, b"")
    async with through("up:reset@1.5s") as (_, ours, _far):
        assert await everything(ours) == (1.5, b"")


async def test_a_half_close_leaves_the_other_half(autojump_clock):
    async with through("up:halfclose@2") as (_, ours, far):
        await ours.send_all(b"0123")
        assert (await everything(far))[1] == b"01"
        await far.send_all(b"still here")
        await far.send_eof()
        assert (await everything(ours))[1] == b"still here"


async def test_a_black_hole_takes_everything_and_says_nothing(autojump_clock):
    async with through("up:blackhole@2") as (_, ours, far):
        await ours.send_all(b"0123")
        assert await far.receive_some() == b"01"
        await ours.send_all(b"4")
        await ours.send_eof()
        await far.send_all(b"hello?")
        assert await ours.receive_some() == b"hello?"
        with trio.move_on_after(1000) as scope:
            await far.receive_some()
        assert scope.cancelled_caught


async def test_a_fault_may_meet_one_connection(autojump_clock):
    async with through("2:close@0") as (proxy, ours, far):
        assert proxy.plan.link(2, Direction.UP).end_at_bytes == 0
        assert proxy.plan.link(1, Direction.UP).ending is None
        await ours.send_all(b"x")
        assert await far.receive_some() == b"x"


async def test_a_target_that_is_not_there_ends_the_caller(autojump_clock):
    async def refuse() -> Stream:
        raise OSError("nobody there")

    ours, theirs = trio.testing.memory_stream_pair()
    await FaultProxy(refuse).serve_stream(theirs)
    assert await everything(ours) == (0, b"")


async def spoiled_by(seed: int) -> tuple[list[Happening], list[bytes]]:
    happenings, seen = [], []
    for _ in range(2):
        async with through("slice=9 corrupt=0.02", seed=seed) as (proxy, ours, far):
            await ours.send_all(bytes(2000))
            await ours.send_eof()
            seen.append((await everything(far))[1])
            happenings.append(proxy.happenings)
    assert happenings[0] == happenings[1]
    assert seen[0] == seen[1]
    return happenings[0], seen


async def test_a_seed_repeats_itself_and_another_differs(autojump_clock):
    assert await spoiled_by(1) == await spoiled_by(1)
    assert await spoiled_by(1) != await spoiled_by(2)


def test_faults_by_chance_are_those_of_the_seed():
    def drawn(seed: int, share: float) -> list[object]:
        plan = Plan(seed=seed, share=share)
        return [plan.link(number, way) for number in range(1, 200) for way in Direction]

    assert drawn(3, 0.5) == drawn(3, 0.5) != drawn(4, 0.5)
    plain = [link for link in drawn(3, 0.5) if link.ending is None and not link.corrupt_at]  # type: ignore[attr-defined]
    assert 0 < len(plain) < 398
    assert all(
        link.ending is None and math.isinf(link.bytes_per_s)  # type: ignore[attr-defined]
        for link in drawn(3, 0.0)
    )


@pytest.mark.parametrize(
    "text",
    ["nonsense", "reset=3", "latency", "latency=0", "latency=1@5", "corrupt@1s",
     "sideways:reset@1", "latency=1.2.3", "slice=5s", ":reset@1"],
)  # fmt: skip
def test_what_is_no_fault_is_refused_with_what_would_be_one(text):
    with pytest.raises(BadFaultError) as caught:
        Plan.parse(text)
    assert repr(text) in str(caught.value)


async def test_over_tcp_and_over_a_unix_socket(tmp_path):
    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(data)

    path = str(tmp_path / "bad.sock")
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, echo, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        async with (
            proxied(f"127.0.0.1:{port}", Plan.parse("down:reset@4"), listen=path),
            proxied(path) as second,
        ):
            stream = await trio.open_tcp_stream("127.0.0.1", second.port)
            await stream.send_all(b"echo")
            assert await stream.receive_some() == b"echo"
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "bad.sock").exists()


@pytest.mark.parametrize("arguments", [["proxy", "--to", "127.0.0.1:1"], ["upstream"]])
def test_the_programs_say_when_they_are_ready_and_end_on_a_signal(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.faults", *arguments],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("faults ready on ")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_the_list_and_what_is_refused(capsys):
    assert main(["list"]) == 0
    assert "ends-in-body" in capsys.readouterr().out
    for wrong in (
        ["proxy", "--to", "127.0.0.1:1", "nonsense"],
        ["proxy", "--to", "no-address"],
        ["upstream", "--only", "nonsense"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
    assert main(["proxy", "--to", "127.0.0.1:1", "--listen", "/no/such/folder/x.sock"]) == 1
    assert "cannot listen" in capsys.readouterr().err
