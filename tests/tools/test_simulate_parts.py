"""The parts that the simulation's word rests on: its log, its lines, what its rules count by."""

import attrs
import pytest
import trio
import trio.testing

from tools.chance import stream
from tools.simulate._event_log import EventLog
from tools.simulate._line import Head, Line
from tools.simulate._moods import MOODS, Connect, Draw, Reaction
from tools.simulate._records import Attempt, CallRecord, Exchange
from tools.simulate._rules_limits import Meter
from tools.simulate._setup import draw_setup, redraw
from vastar_client.wire import Disposition
from vastar_runtime.policy.rate_limit import RateLimitSettings

TWO_A_SECOND = RateLimitSettings(2, burst=3)


def test_streams_of_one_seed_have_nothing_to_do_with_each_other() -> None:
    draws = {stream(seed, name).random() for seed in (1, 2) for name in ("a", "b")}
    assert len(draws) == 4
    assert stream(1, "a").random() in draws


def test_the_hash_is_of_every_field() -> None:
    def digest(**fields: object) -> str:
        log = EventLog(lambda: 1.5)
        log.add("event", **fields)
        return log.digest

    assert digest(a=1) == digest(a=1, b=None)
    assert len({digest(a=1), digest(a=2), digest(b=1), digest(a="1 2"), digest()}) == 5


def test_a_line_is_written_as_it_is_hashed() -> None:
    echoed: list[str] = []
    log = EventLog(lambda: 0.25, echoed.append)
    log.add("call", seconds=1 / 3, what="two words", none=None, empty="")
    assert log.lines == echoed == ["0.250000 call seconds=0.333333 what='two words' empty=''"]


@pytest.mark.parametrize(
    ("spent", "worst"),
    [
        ([(0.0, 1), (0.0, 1), (0.0, 1)], 0),
        ([(0.0, 1), (0.0, 1), (0.0, 1), (0.0, 1)], 1),
        ([(0.0, 3), (0.4, 1)], 0.2),
        ([(0.0, 3), (0.5, 1)], 0),
        ([(0.0, 1), (10.0, 3), (10.5, 1)], 0),
        ([(10.0, 3), (0.0, 1), (10.0, 1)], 1),  # in whatever order one hears of it
    ],
)
def test_a_meter_measures_every_window(spent: list[tuple[float, int]], worst: float) -> None:
    meter = Meter()
    over = [meter.excess(TWO_A_SECOND, at_s, cost, is_last=True) for at_s, cost in spent]
    assert max(over) == pytest.approx(worst, abs=0.01)


def test_behind_another_line_only_the_whole_is_measured() -> None:
    meter = Meter()
    assert meter.excess(TWO_A_SECOND, 10.0, 20, is_last=False) < 0
    assert meter.excess(TWO_A_SECOND, 10.0, 5, is_last=False) > 0


def call() -> CallRecord:
    return CallRecord(1, "a", "", "http://one.sim", "PUT", False, True, 1, 1, 0.0, 1.0)


async def test_a_line_sees_requests_as_they_leave_and_counts_what_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heads: list[Head] = []

    def begin(line: Line, head: Head) -> Exchange:
        heads.append(head)
        attempt = Attempt(1, call(), 0, ("a", "", "http://one.sim"), "PUT", 0.0, 0, 0.0)
        return Exchange(len(heads), attempt, line, 0.0)

    line = Line(1, "http://one.sim", begin)
    await line.send_buffers((b"PUT /1/0 HTTP/1.1\r\nContent-Le", b"ngth: 4\r\n"))
    assert not heads
    await line.send_buffers((b"\r\nbo",))
    (head,), (exchange,) = heads, line.requests
    assert (head.method, head.target, head.body_bytes) == ("PUT", "/1/0", 4)
    assert not exchange.is_sent
    await line.send_buffers((b"dyGET /2/0 HTTP/1.1\r\n\r\n",))
    assert [each.is_sent for each in line.requests] == [True, True]
    assert [head.method for head in heads] == ["PUT", "GET"]
    second = line.requests[-1]
    reached = [exchange.reached, second.reached]
    second.answer_bytes = 7
    await line.far.send_buffers((b"1234567",))
    assert await line.receive_some(3) == b"123"
    reached.append(second.reached)
    await line.receive_some()
    reached.append(second.reached)
    assert reached == [
        Disposition.SENT_NO_RESPONSE,
        Disposition.SENT_NO_RESPONSE,
        Disposition.RESPONSE_STARTED,
        Disposition.COMPLETED,
    ]
    closed_at_s = [line.closed_at_s]
    line.abort()
    assert [*closed_at_s, line.closed_at_s] == [None, trio.current_time()]
    assert line.scope.cancel_called


@pytest.mark.parametrize("mood", MOODS, ids=lambda mood: mood.name)
def test_every_mood_knows_what_to_do(mood: object) -> None:
    chance = stream(0, "mood")
    for _ in range(50):
        reaction = mood.draw(Draw(chance, 1.8e9, ("http://one.sim",)))  # type: ignore[attr-defined]
        assert isinstance(reaction, Reaction)
        assert reaction.status or reaction.raw or reaction.ending.name in {"RESET", "SILENCE"}


def test_the_moods_know_every_fault_of_a_connection() -> None:
    assert {mood.connect for mood in MOODS} == set(Connect)


def test_another_configuration_leaves_callers_and_hosts_alone() -> None:
    setup = draw_setup(3)
    other = redraw(stream(3, "other"), setup)
    assert (other.tenants, other.hosts) == (setup.tenants, setup.hosts)
    assert other.config.http == setup.config.http
    assert other.config != setup.config
    assert attrs.evolve(other, features=(), config=setup.config) == attrs.evolve(setup, features=())
