"""Where the time goes: the sampler, the stages, and the flame graph."""

import sys
from pathlib import Path

import pytest

from benchmarks import _pipeline_calls, _stage_loops, flame, stage_budget
from benchmarks._flame_picture import Box, boxes, draw
from benchmarks._profile import Profile
from benchmarks._report import Options, Sample
from benchmarks._sampled import Sampler, label
from benchmarks._stages import STAGES, by_stage, parse_folded, stage_of
from vastar_client.wire import Connection
from vastar_runtime.session import Session

LOOP = ("vastar_runtime.server:run", "trio._core._run:run")
TURN = (*LOOP, "trio._core._run:unrolled_run")
SESSION = (*TURN, "vastar_runtime.session:Session._read")
CALL = (*TURN, "vastar_runtime.session:Session._serve", "vastar_runtime.dispatch:Dispatcher.serve")
EXCHANGE = (
    *CALL,
    "vastar_runtime.pipeline.breaking:BreakerLayer.__call__",
    "vastar_runtime.transport.http1:Http1Connection.exchange",
)
OUTBOX = (*TURN, "vastar_runtime.outbox:Outbox.run")


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ((*SESSION, "vastar_runtime.transport.channel:SocketChannel.receive_some"), "read"),
        ((*SESSION, "vastar_client.wire.framing:FrameDecoder.next_frame"), "frame"),
        ((*SESSION, "vastar_client.wire.connection:Connection.next_event"), "decode"),
        ((*SESSION, "trio._core._run:Nursery.start_soon"), "spawn"),
        (SESSION, "dispatch"),
        ((*CALL, "contextlib:contextmanager"), "dispatch"),
        (EXCHANGE[:-1], "policy"),
        ((*CALL, "vastar_runtime.connectors.http.connector:HttpConnector.execute"), "connector"),
        ((*EXCHANGE, "vastar_runtime.transport.pool:Pool.acquire"), "pool"),
        (EXCHANGE, "send"),
        ((*EXCHANGE, "vastar_runtime.transport.channel:SocketChannel.try_send"), "send"),
        (
            (
                *EXCHANGE,
                "vastar_runtime.transport.channel:SocketChannel.receive_some",
                "trio._core._io_epoll:EpollIOManager.wait_readable",
            ),
            "wait",
        ),
        ((*EXCHANGE, "vastar_runtime.transport.parser:ResponseParser.feed"), "parse"),
        ((*OUTBOX, "vastar_client.wire.connection:Connection.send"), "encode"),
        ((*OUTBOX, "vastar_client.wire.codec:encode_message", "enum:__get__"), "encode"),
        (
            (
                *OUTBOX,
                "vastar_runtime.transport.channel:SocketChannel.send_buffers",
                "vastar_runtime.transport.channel:SocketChannel.try_send",
            ),
            "write",
        ),
        ((*CALL, "vastar_runtime.log_sink:LineSink.msg"), "log"),
        ((*CALL, "vastar_runtime.metrics.meters:Meters.call_ended"), "metrics"),
        ((*LOOP, "trio._core._io_epoll:EpollIOManager.get_events"), "scheduler"),
        (("threading:Thread.run",), "other"),
    ],
)
def test_a_stack_belongs_to_the_innermost_frame_that_a_rule_knows(
    frames: tuple[str, ...], stage: str
) -> None:
    assert stage_of(frames) == stage
    assert stage in STAGES


def test_shares_add_up() -> None:
    shares = by_stage({SESSION: 3, EXCHANGE: 1})
    assert (shares["dispatch"], shares["send"]) == (0.75, 0.25)
    assert sum(shares.values()) == 1.0


def test_the_sampler_counts_stacks_while_its_gate_is_open(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "gate")
    frame = sys._getframe()
    for _ in range(16):
        sampler.tick(0, frame)
    assert not sampler.stacks
    (tmp_path / "gate").touch()
    for _ in range(16):
        sampler.tick(0, frame)
    stacks = parse_folded(sampler.folded())
    assert sum(stacks.values()) >= 12
    name = test_the_sampler_counts_stacks_while_its_gate_is_open.__name__
    assert {frames[-1].rpartition(":")[2] for frames in stacks} == {name}


def test_labels_name_modules_wherever_they_are_installed() -> None:
    assert label(Session.run.__code__) == "vastar_runtime.session:Session.run"
    assert label(Connection.send.__code__) == "vastar_client.wire.connection:Connection.send"
    assert label(pytest.main.__code__) == "_pytest.config.__init__:main"
    assert label(Path.exists.__code__).startswith("pathlib")


def test_boxes_lie_on_those_that_called_them_without_what_all_share() -> None:
    stacks = {("a", "b", "c"): 1, ("a", "b", "d"): 2, ("a", "b", "d", "e"): 1}
    assert boxes(stacks) == [
        Box("b", 0, 0.0, 1.0),
        Box("c", 1, 0.0, 0.25),
        Box("d", 1, 0.25, 0.75),
        Box("e", 2, 0.25, 0.25),
    ]
    assert boxes({}) == []


def test_the_flame_graph_is_a_picture_and_its_table_has_the_top(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "flame.png"
    stacks = {SESSION: 3, EXCHANGE: 1}
    draw(str(path), stacks, "title")
    assert path.read_bytes().startswith(b"\x89PNG")
    rows = flame.rows(Profile(stacks, Sample(1.0, 1.0, 1.0, cpu_us=80.0)))
    assert [(row["self %"], row["us a request"]) for row in rows] == [(75.0, 60.0), (25.0, 20.0)]


def test_the_budget_shares_out_the_whole_total() -> None:
    rows = stage_budget.rows("s", 100.0, 0.9, {SESSION: 3, EXCHANGE: 1}, {"decode": 4.0})
    us = {row["stage"]: row["us in place"] for row in rows}
    assert us["dispatch"] == pytest.approx(67.5)
    assert us["other threads"] == pytest.approx(10.0)
    assert sum(float(n) for stage, n in us.items() if stage != "total") == pytest.approx(100.0)
    alone = {row["stage"]: row["us alone"] for row in rows}
    assert (alone["decode"], alone["total"], alone["pool"]) == (4.0, 4.0, "")


async def test_the_stages_that_have_loops_are_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stage_loops, "BATCH", 10)
    monkeypatch.setattr(_pipeline_calls, "BATCH_CALLS", 2)
    taken = await _stage_loops.measure(_stage_loops.Turns(1))
    assert set(taken.us) <= set(STAGES)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_profiles_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flame.png"
    assert flame.run(Options(seconds=1.0, rounds=1, output=str(path))).rows
    assert path.with_suffix(".folded").read_text()
    monkeypatch.setattr(stage_budget, "LOOP_ROUNDS", 1)
    rows = stage_budget.run(Options(seconds=1.0, rounds=1)).rows
    other = [row["%"] for row in rows if row["stage"] == "other"]
    assert max(map(float, other)) < 10  # else the table of stages has to follow the code
