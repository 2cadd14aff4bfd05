"""The benchmarks' harness works: no timing is asserted here, for speed is shown, not tested."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import (
    _open_loop,
    _pipeline_calls,
    _shared_calls,
    closed_loop,
    guard_cost,
    memory,
    metrics_cost,
    noisy_neighbour,
    pipeline_cost,
    pipelining,
    shared_policies_cost,
)
from benchmarks._load import Link, Template, WrongAnswer, answer_fields, sample_of
from benchmarks._open_loop import Generator, OpenSpec, schedule_s
from benchmarks._report import Claim, Options, Report, shown
from benchmarks._upstream import SMALL_BODY, Peer
from vastar_client.wire import (
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HttpResponse,
    PayloadFormat,
    Role,
    encode_http_response,
)
from vastar_runtime.pipeline.layers import LAYERS


def answer(request_id: int, **fields: object) -> bytes:
    return b"".join(
        Connection(Role.RUNTIME).send(ExecuteResponse(request_id, **fields))  # type: ignore[arg-type]
    )


def good_answer(request_id: int, body: bytes = SMALL_BODY) -> bytes:
    response = HttpResponse(200, body=body, http_version="1.1", url="http://x/")
    payload = encode_http_response(response)
    return answer(request_id, payload=payload, payload_format=PayloadFormat.NATIVE)


@pytest.mark.parametrize("request_id", [0, 1, 2**40, 2**64 - 1])
@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_the_load_reads_id_and_class_as_the_codec_does(
    request_id: int, error_class: ErrorClass
) -> None:
    frame = answer(request_id, error_class=error_class, error_message="m", duration_us=7)
    assert answer_fields(frame, 5) == (request_id, error_class)


@pytest.mark.parametrize("json_payload", [False, True])
def test_a_template_gives_the_same_call_under_each_id(json_payload: bool) -> None:
    template = Template("http://127.0.0.1:1/small", json_payload=json_payload)
    for request_id in (1, 2**40):
        connection = Connection(Role.RUNTIME)
        connection.receive_data(template.frame(request_id))
        call = connection.next_event()
        assert isinstance(call, ExecuteRequest)
        assert (call.request_id, call.connector_name) == (request_id, "http")
        assert b"http://127.0.0.1:1/small" in bytes(call.payload)


@pytest.fixture
def link(tmp_path: Path):
    """A link of the load, and the runtime's end of it."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        link = Link(path, Template("http://127.0.0.1:1/small"), 3)
        accepted, _ = listener.accept()
        with accepted, link.socket:
            yield link, accepted


def test_the_load_counts_whole_answers_and_keeps_the_rest(link) -> None:
    load, runtime = link
    load.ask([1, 2, 3])
    waits_ns: list[int] = []
    frames = b"".join(good_answer(request_id) for request_id in (2, 1, 3))
    runtime.sendall(frames[:-1])
    assert load.take(waits_ns) == [2, 1]
    runtime.sendall(frames[-1:])
    assert load.take(waits_ns) == [3]
    assert len(waits_ns) == 3
    load.ask([2])  # ids are taken again
    runtime.sendall(good_answer(2))
    assert load.take(waits_ns) == [2]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (answer(1, error_class=ErrorClass.TRANSIENT, error_message="no"), WrongAnswer),
        (good_answer(1, b"something else"), WrongAnswer),
        (good_answer(9), IndexError),
        (good_answer(2), WrongAnswer),
    ],
    ids=["a failure", "a wrong body", "an id that is none of ours", "a call that nobody made"],
)
def test_the_load_refuses_a_wrong_answer(link, frame: bytes, expected: type[Exception]) -> None:
    load, runtime = link
    load.ask([1])
    runtime.sendall(frame)
    with pytest.raises(expected):
        load.take([])


def test_a_sample_tells_rates_and_percentiles() -> None:
    sample = sample_of([1000 * us for us in range(100, 0, -1)], 2.0, 0.001)
    assert (sample.requests_per_s, sample.p50_us, sample.p99_us) == (50.0, 51.0, 100.0)
    assert sample.cpu_us == pytest.approx(10.0)


def open_spec(path: str = "", **fields: object) -> OpenSpec:
    given = {"calls_per_s": 50.0, "connections": 1, "begin_at_s": 0.0, "warm_s": 1.0, **fields}
    url = "http://127.0.0.1:1/small"
    return OpenSpec(path, url, "quiet", seconds=9.0, seed=1, **given)  # type: ignore[arg-type]


def test_an_open_loop_draws_its_times_before_by_seed() -> None:
    times_s = schedule_s(open_spec())
    assert times_s == schedule_s(open_spec()) == sorted(times_s)
    assert len(times_s) == pytest.approx(500, rel=0.2)
    assert times_s[0] > 0
    assert times_s[-1] < 10


@pytest.fixture
def open_load(tmp_path: Path):
    """A generator of four calls, of which three are due, and the runtime's end of its line."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        load = Generator(open_spec(path), [0.0, 1.0, 2.0, 1e9])
        accepted, _ = listener.accept()
        with accepted, load.lines[0].socket:
            yield load, accepted


def test_an_open_loop_sends_what_is_due_and_counts_from_its_set_time(open_load) -> None:
    load, runtime = open_load
    load.send_due(2.5)
    received = Connection(Role.RUNTIME)
    received.receive_data(runtime.recv(65_536))
    sent = [received.next_event() for _ in range(3)]
    assert [call.request_id for call in sent] == [1, 2, 3]
    assert {call.tenant_id for call in sent} == {"quiet"}
    assert min(load.late_s[:3]) > 0
    assert load.late_s[3] == 0
    refused = answer(2, error_class=ErrorClass.RATE_LIMITED, error_message="full")
    runtime.sendall(good_answer(1) + refused)
    load.take(load.lines[0], 7.0)
    assert load.waits_s == [7.0, 6.0, -1.0, -1.0]
    assert load.refusals == {1: ErrorClass.RATE_LIMITED}
    sample = _open_loop.sample_of(open_spec(warm_s=0.0), [0.0, 1.0, 2.0, 1e9], load, 0.5)
    assert (sample.calls, sample.answered, sample.refused) == (4, 1, {"RATE_LIMITED": 1})
    assert (sample.p50_us, sample.p99_us) == (7e6, 7e6)


def test_an_open_loop_refuses_a_second_answer(open_load) -> None:
    load, runtime = open_load
    load.send_due(2.5)
    runtime.sendall(good_answer(1) + good_answer(1))
    with pytest.raises(WrongAnswer):
        load.take(load.lines[0], 7.0)


def test_an_open_loop_keeps_what_the_socket_has_no_room_for(open_load) -> None:
    load, runtime = open_load
    line = load.lines[0]
    assert not line.send(bytes(10_000_000))
    assert not line.send(b"end")
    received = bytearray()
    while len(received) < 10_000_003:
        received += runtime.recv(1_000_000)
        line.flush()
    assert received.endswith(b"\0end")
    assert not line.unsent


def test_the_upstream_answers_heads_in_pieces_and_swallows_bodies() -> None:
    peer = Peer(socket.socket())
    with peer.socket:
        assert peer.take(b"GET /small HTTP/1.1\r\n\r\n").endswith(SMALL_BODY)
        assert peer.take(b"POST /sink HTTP/1.1\r\nContent-") == b""
        assert peer.take(b"Length: 5\r\n\r\nab") == b""
        assert peer.take(b"cde").endswith(SMALL_BODY)
        assert peer.take(b"GET /bytes/3 HTTP/1.1\r\nhost: x\r\n\r\n").endswith(b"\r\n\r\nxxx")


def test_a_claim_holds_on_its_side_of_the_bound() -> None:
    assert Claim("at most", 3.0, 3.0, at_most=True).held
    assert not Claim("at most", 3.1, 3.0, at_most=True).held
    assert not Claim("at least", 2.9, 3.0, at_most=False).held
    assert str(Claim("n", 2.0, 3.0, at_most=False)) == "n: 2.00 >= 3.00: NOT held"


def test_a_report_is_a_table() -> None:
    report = Report("r", [{"who": "a", "n": 1.5}, {"who": "bcd", "n": 1234.5}])
    lines = [line.split() for line in report.lines()]
    assert lines[1:] == [["who", "n"], ["a", "1.50"], ["bcd", "1,234"]]
    assert shown(-250.0) == "-250"


def test_the_list_names_every_module_of_the_room(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    listing = capsys.readouterr().out.partition("\n\n")[0]
    listed = {line.split()[0] for line in listing.splitlines()}
    room = Path(command.__file__).parent
    assert listed == {p.stem for p in room.glob("*.py") if p.stem[0] != "_"} | {"all"}


def test_an_unknown_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["closed_lop"]) == 2
    assert "closed_loop" in capsys.readouterr().err


def test_one_file_is_not_for_the_pictures_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["flame", "outage", "--output", "x.png"]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["0", "-1", "x"])
def test_options_that_mean_nothing_are_refused(bad: str) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["memory", "--rounds", bad])
    assert ended.value.code == 2


def test_the_command_exits_by_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = [Claim("c", 1.0, 2.0, at_most=True)]
    monkeypatch.setattr(memory, "run", lambda _options: Report("memory", [], claims))
    path = tmp_path / "out.json"
    assert command.main(["memory", "--json", str(path)]) == 0
    assert json.loads(path.read_bytes())["reports"][0]["claims"][0]["measured"] == 1.0
    claims.append(Claim("d", 3.0, 2.0, at_most=True))
    assert command.main(["memory"]) == 1


def test_options_come_from_the_benchmark_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Options] = []
    monkeypatch.setattr(memory, "OPTIONS", Options(seconds=7.0, rounds=9), raising=False)
    monkeypatch.setattr(memory, "run", lambda options: seen.append(options) or Report("m", []))
    command.main(["memory"])
    command.main(["memory", "--rounds", "2", "--pin"])
    assert seen == [Options(seconds=7.0, rounds=9), Options(seconds=7.0, rounds=2, pin=True)]


async def test_the_pipelines_cost_is_told_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pipeline_calls, "BATCH_CALLS", 2)
    taken = await _pipeline_calls.measure(_pipeline_calls.Turns(2))
    told = {str(row["what"]): str(row["to"]) for row in pipeline_cost.rows(taken)}
    chain = ["whole pipeline"]
    while told[chain[-1]]:
        chain.append(told[chain[-1]])
    names = [each.name for each in LAYERS]
    inner = [f"+ {name}" for name in names[1 : names.index("connection_pool")]]
    assert chain[1:] == [*inner, "lease, pool, transport", "no policies"]
    whole = {"a whole call, no policies", "a whole call, whole pipeline"}
    others = {"every policy off", "limits at four scopes", "circuit open"}
    assert set(told) == {*chain, *whole, *others}
    assert all(len(found) == 2 for found in taken.us.values())


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a memory file")
async def test_what_sharing_costs_is_told_beside_own_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_pipeline_calls, "BATCH_CALLS", 2)
    taken = await _shared_calls.measure(_pipeline_calls.Turns(2))
    told = {str(row["what"]): str(row["to"]) for row in shared_policies_cost.rows(taken)}
    assert told == {
        "default policies, own machines": "",
        "default policies, shared": "default policies, own machines",
        "default policies, shared with a busy sibling": "default policies, own machines",
        "limits at four scopes, own machines": "",
        "limits at four scopes, shared": "limits at four scopes, own machines",
    }
    assert all(len(found) == 2 for found in taken.us.values())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_the_neighbours_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy_neighbour, "WARM_S", 0.2)
    report = noisy_neighbour.run(Options(seconds=0.5, rounds=1))
    assert [row["who"] for row in report.rows] == ["quiet", "quiet", "noisy", "quiet", "noisy"]
    assert all(row["answered"] for row in report.rows)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_every_benchmark_runs() -> None:
    short = Options(seconds=0.2, rounds=1)
    shapes = {row["shape"] for row in closed_loop.run(short).rows}
    assert shapes == {shape.name for shape in closed_loop.SHAPES}
    assert [row["who"] for row in pipelining.run(short).rows] == ["at once", "one by one"]
    assert len(memory.run(short).rows) == 7
    assert len(metrics_cost.run(short).rows) == 3
    assert len(guard_cost.run(short).rows) == 9


def test_the_room_needs_no_other_process_to_be_listed() -> None:
    """Listing starts no runtime: it must work where none can run."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks"],
        cwd=Path(command.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "closed_loop" in done.stdout
