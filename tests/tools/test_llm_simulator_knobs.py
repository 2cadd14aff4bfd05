"""What the simulator can be told to do: delays in virtual time, errors, cuts, hangs."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.tools.simulator_client import CHAT, Answer, asking, connect
from tools.llm_simulator import BadKnobError, Knobs, Simulator
from tools.llm_simulator._knobs import descriptions, from_headers, with_texts

STREAM = asking("Count for me", stream=True)


async def ask(
    nursery: trio.Nursery, knobs: dict[str, str], simulator: Simulator | None = None
) -> Answer:
    """A streamed chat over a connection of its own, knobs as headers."""
    client = connect(nursery, simulator or Simulator())
    headers = {f"x-sim-{name}": value for name, value in knobs.items()}
    return await client.ask("POST", CHAT, STREAM, headers)


async def test_head_delay(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The head comes after the delay, and the events right behind it."""
    start_s = trio.current_time()
    answer = await ask(nursery, {"head-delay-s": "1.5"})
    assert answer.head_at_s - start_s == pytest.approx(1.5)
    assert answer.parts[-1][0] == answer.head_at_s


@pytest.mark.parametrize("path", ["/test_completion", "/v1/embeddings"])
async def test_head_delay_of_a_plain_answer(
    nursery: trio.Nursery, autojump_clock: MockClock, path: str
) -> None:
    start_s = trio.current_time()
    client = connect(nursery, Simulator(Knobs(head_delay_s=2)))
    answer = await client.ask("POST", path, {"input": "a"})
    assert (answer.status, answer.complete) == (200, True)
    assert trio.current_time() - start_s == pytest.approx(2)


async def test_event_delay(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The first event at once, each later one a delay after the one before, alone."""
    answer = await ask(nursery, {"event-delay-s": "0.25"})
    assert answer.parts[0][0] == answer.head_at_s
    assert len(answer.parts) == len(answer.events)
    gaps = [later[0] - sooner[0] for sooner, later in pairwise(answer.parts)]
    assert gaps == pytest.approx([0.25] * len(gaps))


async def test_a_slow_reader_does_not_add_to_the_delays(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Events keep to the timetable that the start set."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    nursery.start_soon(Simulator().serve_stream, theirs)
    client = connect(nursery, Simulator())
    client.stream = ours
    await client.send("POST", CHAT, STREAM, {"x-sim-event-delay-s": "1"})
    first = await client.receive(parts=1)
    await trio.sleep(3.5)
    rest = await client.receive()
    since_start = [at_s - first.head_at_s for at_s, _ in rest.parts]
    assert since_start[:4] == pytest.approx([3.5, 3.5, 3.5, 4])


async def test_jitter(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Delays spread over 1 - ratio to 1 + ratio, the same again under the same seed."""
    told = {"event-delay-s": "1", "jitter-ratio": "0.5", "seed": "11", "words": "400"}
    first, second = await ask(nursery, told), await ask(nursery, told)
    gaps, again = (
        [later[0] - sooner[0] for sooner, later in pairwise(answer.parts)]
        for answer in (first, second)
    )
    assert gaps == pytest.approx(again)
    assert len(gaps) > 100
    assert all(abs(gap - 1) < 0.5 + 1e-6 for gap in gaps)
    assert min(gaps) < 0.6
    assert max(gaps) > 1.4


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (404, "invalid_request_error", "model_not_found"),
        (418, "invalid_request_error", None),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "server_error", None),
        (599, "server_error", None),
    ],
)
async def test_status_with_openai_s_error_body(
    nursery: trio.Nursery, status: int, kind: str, code: str | None
) -> None:
    answer = await ask(nursery, {"status": str(status)})
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert error.pop("message")
    assert error == {"type": kind, "param": None, "code": code}
    assert ("retry-after" in answer.headers) == (status == 429)


async def test_status_for_the_first_requests_only(nursery: trio.Nursery) -> None:
    """Per key, so that tests sharing a simulator do not disturb each other."""
    simulator = Simulator()
    told = {"status": "503", "status-times": "2", "key": "a"}
    found = [(await ask(nursery, told, simulator)).status for _ in range(4)]
    assert found == [503, 503, 200, 200]
    assert (await ask(nursery, {**told, "key": "b"}, simulator)).status == 503


async def test_throttle_for_a_while(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """429 from the first request on; Retry-After tells what is left; then served for good."""
    simulator = Simulator()
    told = {"throttle-s": "2.5"}
    first = await ask(nursery, told, simulator)
    assert first.status == 429
    assert (first.headers["retry-after"], first.headers["retry-after-ms"]) == ("3", "2500")
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert first.headers["x-ratelimit-reset-requests"] == "2.500s"
    limits = {name for name in first.headers if name.startswith("x-ratelimit-")}
    assert limits == {
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    }
    assert first.json()["error"]["code"] == "rate_limit_exceeded"
    await trio.sleep(1.5)
    later = await ask(nursery, told, simulator)
    assert (later.status, later.headers["retry-after-ms"]) == (429, "1000")
    await trio.sleep(1)
    assert (await ask(nursery, told, simulator)).status == 200
    assert (await ask(nursery, told, simulator)).status == 200
    assert (await ask(nursery, {**told, "key": "other"}, simulator)).status == 429
    assert (await ask(nursery, {}, simulator)).status == 200


async def test_retry_after_can_be_told(nursery: trio.Nursery) -> None:
    busy = await ask(nursery, {"status": "503", "retry-after-s": "0.2"})
    assert (busy.headers["retry-after"], busy.headers["retry-after-ms"]) == ("1", "200")
    throttled = await ask(nursery, {"throttle-s": "9", "retry-after-s": "4"})
    assert throttled.headers["retry-after"] == "4"


@pytest.mark.parametrize("delay_s", ["0", "0.5"])
@pytest.mark.parametrize("count", [0, 1, 5])
async def test_cut_mid_stream(
    nursery: trio.Nursery, autojump_clock: MockClock, count: int, delay_s: str
) -> None:
    """So many whole events, then the end of the connection without the last chunk."""
    simulator = Simulator()
    told = {"cut-after-events": str(count), "event-delay-s": delay_s}
    answer = await ask(nursery, told, simulator)
    assert (answer.status, answer.complete) == (200, False)
    assert len(answer.events) == count
    assert simulator.stats.cut_by_knob == 1
    assert simulator.stats.cut_by_client == 0
    assert simulator.stats.finished == 0


async def test_cut_after_the_last_event_still_lacks_the_end(nursery: trio.Nursery) -> None:
    whole = await ask(nursery, {})
    cut = await ask(nursery, {"cut-after-events": str(len(whole.events))})
    assert (cut.events[-1], cut.complete) == ("[DONE]", False)
    beyond = await ask(nursery, {"cut-after-events": str(len(whole.events) + 1)})
    assert beyond.complete


async def test_cut_of_a_plain_answer_breaks_off_half_way(nursery: trio.Nursery) -> None:
    client = connect(nursery, Simulator(Knobs(cut_after_events=0)))
    answer = await client.ask("POST", "/test_completion")
    assert (answer.status, answer.complete) == (200, False)
    assert 0 < len(answer.body) < int(answer.headers["content-length"])


async def test_hang_before_the_head(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Nothing for an hour; the request is still counted as under way, and gone when we go."""
    simulator = Simulator()
    client = connect(nursery, simulator)
    await client.send("POST", CHAT, STREAM, {"x-sim-hang-before-head": "true"})
    with trio.move_on_after(3600) as scope:
        await client.receive()
    assert scope.cancelled_caught
    assert (simulator.stats.active_requests, simulator.stats.active_streams) == (1, 0)
    await client.leave()
    await trio.testing.wait_all_tasks_blocked()
    assert (simulator.stats.active_requests, simulator.stats.cut_by_client) == (0, 1)
    assert simulator.stats.streams_cut_by_client == 0


async def test_hang_mid_stream(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    simulator = Simulator()
    client = connect(nursery, simulator)
    await client.send("POST", CHAT, STREAM, {"x-sim-hang-after-events": "3"})
    answer = await client.receive(parts=3)
    assert len(answer.events) == 3
    with trio.move_on_after(3600) as scope:
        await client.receive(parts=1)
    assert scope.cancelled_caught
    assert simulator.stats.active_streams == 1
    await client.leave()
    await trio.testing.wait_all_tasks_blocked()
    assert (simulator.stats.active_streams, simulator.stats.streams_cut_by_client) == (0, 1)


async def test_the_earlier_of_cut_and_hang_wins(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    cut = await ask(nursery, {"cut-after-events": "2", "hang-after-events": "4"})
    assert (len(cut.events), cut.complete) == (2, False)
    with trio.move_on_after(60) as scope:
        await ask(nursery, {"cut-after-events": "4", "hang-after-events": "2"})
    assert scope.cancelled_caught


async def test_words_and_piece_bytes(nursery: trio.Nursery) -> None:
    answer = await ask(nursery, {"words": "50", "piece-bytes": "4"})
    assert len(answer.text.split(" ")) == 50
    contents = answer.events[1:-2]
    assert {len(e["choices"][0]["delta"]["content"].encode()) for e in contents[:-1]} <= {2, 3, 4}


async def test_a_header_beats_the_flag_for_its_own_request(nursery: trio.Nursery) -> None:
    simulator = Simulator(Knobs(status=500))
    assert (await ask(nursery, {}, simulator)).status == 500
    assert (await ask(nursery, {"status": "418"}, simulator)).status == 418
    assert (await ask(nursery, {"status": "null"}, simulator)).status == 200
    assert (await ask(nursery, {}, simulator)).status == 500


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/_sim/stats")])
async def test_the_simulator_s_own_paths_obey_no_knob(
    nursery: trio.Nursery, method: str, path: str
) -> None:
    client = connect(nursery, Simulator(Knobs(status=500, hang_before_head=True)))
    assert (await client.ask(method, path)).status == 200


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("head-delay-s", "soon", "head_delay_s"),
        ("head-delay-s", "nan", "head_delay_s"),
        ("head-delay-s", "-1", "head_delay_s"),
        ("jitter-ratio", "1.1", "jitter_ratio"),
        ("status", "200", "400"),
        ("piece-bytes", "3", "4 to 65536"),
        ("hang-before-head", "perhaps", "hang_before_head"),
        ("hang-before-haed", "true", "hang_before_head"),
    ],
)
async def test_a_bad_knob_header_is_a_400_that_says_what_would_do(
    nursery: trio.Nursery, name: str, value: str, says: str
) -> None:
    answer = await ask(nursery, {name: value})
    assert answer.status == 400
    error = answer.json()["error"]
    assert says in error["message"]
    assert error["code"] == "bad_knob"


def test_every_knob_is_described_and_can_be_a_header() -> None:
    """The names are the contract of flags, headers and keywords alike."""
    assert list(descriptions()) == list(Knobs.__struct_fields__)
    texts = {"x-sim-cut-after-events": "4", "x-sim-hang-before-head": "true", "accept": "*/*"}
    assert from_headers(Knobs(seed=1), texts) == Knobs(
        seed=1, cut_after_events=4, hang_before_head=True
    )


def test_an_unknown_knob_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadKnobError, match=r"no knob 'delay'.*head_delay_s"):
        with_texts(Knobs(), {"delay": "1"})
