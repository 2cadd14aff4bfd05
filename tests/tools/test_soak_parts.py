"""Parts of the soak: its plan, its calls, its upstream, its samples and its verdict."""

import itertools
from collections import Counter
from functools import partial
from pathlib import Path

import attrs
import msgspec
import pytest
import trio
import trio.testing

from tools.faults import Plan
from tools.soak._async_load import Orders, run_async
from tools.soak._diary import Diary
from tools.soak._ledger import Ledger
from tools.soak._mix import _WEIGHTS, Mix
from tools.soak._picture import draw
from tools.soak._raw_load import RawLoad
from tools.soak._runtime import bugs_logged
from tools.soak._samples import Book, Held, Noted, Sample, Told, busy, told
from tools.soak._schedule import WEATHERS, schedule
from tools.soak._upstream import counting_upstream, faulty_way, refusing_port, silent_upstream
from tools.soak._verdict import verdict
from tools.soak._words import Began, Ended, Spec, Wrong, wrong_with_answer
from vastar_client import ConnectionClosed, ConnectorException, Disposition, RuntimeUnavailable
from vastar_client.wire import HealthResponse

SPEC = Spec(
    name="async.1",
    kind="async",
    seed=1,
    socket_path="/nowhere",
    steady="http://s",
    faulty="http://f",
    hostile="http://h",
    refusing="http://r",
    silent="http://q",
    has_database=True,
    at_once=4,
    calls_per_s=100.0,
)
REST = Told(0, 0, 15, 0, 0, 0, 3, 0)

# --- the plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_s", [20.0, 600.0, 5000.0])
@pytest.mark.parametrize("workers", [1, 2])
def test_everything_happens_in_every_run(run_s, workers):
    plan = schedule(run_s, 3, workers=workers, may_kill=True)
    kinds = Counter(each.what for each in plan)
    wanted = {"quiet", "weather", "kill client", "restart upstream", "reload", "drain"}
    assert kinds.keys() == wanted | {"kill runtime"} | ({"kill worker"} if workers > 1 else set())
    assert plan == schedule(run_s, 3, workers=workers, may_kill=True)
    assert plan != schedule(run_s, 4, workers=workers, may_kill=True)
    assert [each.at_s for each in plan] == sorted(each.at_s for each in plan)
    assert (plan[-1].what, plan[-1].at_s) == ("quiet", run_s)


def test_the_runtime_lives_long_before_and_behind_each_storm():
    plan = schedule(1200.0, 1, workers=2, may_kill=True)
    deaths = [e.at_s for e in plan if e.what in {"kill runtime", "drain", "kill worker"}]
    gaps = [after - before for before, after in itertools.pairwise([0.0, *deaths, 1200.0])]
    assert sum(gap > 230 for gap in gaps) == 3


def test_nothing_of_a_foreign_runtime_is_killed():
    kinds = {each.what for each in schedule(600.0, 1, workers=1, may_kill=False)}
    assert kinds == {"quiet", "weather", "kill client", "restart upstream"}


def test_the_weathers_are_plans():
    for text in WEATHERS:
        assert "corrupt" not in text
        Plan.parse(text)


# --- calls ----------------------------------------------------------------------------------------


def test_a_mix_has_all_kinds_and_repeats_for_its_spec():
    mix, again = Mix(SPEC), Mix(SPEC)
    calls = [mix.next() for _ in range(2000)]
    assert {call.kind for call in calls} == _WEIGHTS.keys()
    assert calls == [again.next() for _ in range(2000)]
    assert len({call.id for call in calls}) == 2000
    for call in calls:
        assert call.is_once == (call.method == "POST" and call.key is None)
        if call.is_counted:
            assert call.url.startswith("http://f" if call.kind.startswith("faulty") else "http://s")
            assert f"/{call.id}/" in call.url
    assert mix.pause_s() >= 0
    other = Mix(msgspec.structs.replace(SPEC, has_database=False))
    assert "sql" not in {other.next().kind for _ in range(500)}


def test_a_diary_says_how_calls_end():
    lines = []
    diary = Diary(lines.append, now_s=iter(map(float, range(100))).__next__)
    call = attrs.evolve(Mix(SPEC).next(), kind="get", is_counted=True, body=b"", timeout_s=1.0)
    for error, how in (
        (RuntimeUnavailable("none"), "absent"),
        (ConnectionClosed("gone"), "lost"),
        (ConnectorException("no", refused_by="drain:runtime"), "draining"),
        (ConnectorException("no", disposition=Disposition.NOT_SENT, attempts=2), "PERMANENT"),
    ):
        diary.began(call)
        diary.failed(call, error)
        began = msgspec.json.decode(lines[-2], type=Began | Ended)
        ended = msgspec.json.decode(lines[-1], type=Began | Ended)
        assert (began.id, ended.id, ended.how) == (call.id, call.id, how)
        assert ended.late_s == 0.0
    assert (ended.disposition, ended.attempts) == (Disposition.NOT_SENT, 2)
    diary.began(call)
    diary.answered(call, b"well", Disposition.COMPLETED, 1)
    assert "none of the upstream's" in msgspec.json.decode(lines[-2], type=Wrong).what
    for healthy, message, how in ((True, "ok", "answer"), (False, "1: draining", "draining")):
        diary.began(call)
        diary.told_health(call, HealthResponse(healthy, message))
        assert b'"type":"b"' in lines[-2], "nothing is wrong"
        assert msgspec.json.decode(lines[-1], type=Ended).how == how
    diary.began(call)
    diary.told_health(call, HealthResponse(healthy=False, message="stuck"))
    assert "not healthy: stuck" in msgspec.json.decode(lines[-2], type=Wrong).what
    diary.began(call)
    diary.failed(call, ConnectorException("full", refused_by="in_flight:connection"))
    assert "one too many" in msgspec.json.decode(lines[-2], type=Wrong).what
    diary.began(call)
    diary.told_row(call, "another")
    assert "a row of 'another'" in msgspec.json.decode(lines[-2], type=Wrong).what


async def test_orders_are_carried_out_one_after_another(autojump_clock):
    """A client that has just been started may be told to rest before it has begun to go."""
    lines, orders = [], Orders()
    for load in (
        partial(run_async, SPEC, Diary(lines.append), orders),
        RawLoad(SPEC, Diary(lines.append), orders).run,
    ):
        lines.clear()
        async with trio.open_nursery() as nursery:
            orders.go()
            orders.rest()
            nursery.start_soon(load)
            await trio.testing.wait_all_tasks_blocked()
            assert len(lines) == 1
            orders.go()  # and nobody is there
            await trio.sleep(3)
            orders.rest()
            await trio.sleep(3)
            assert [msgspec.json.decode(line)["type"] for line in lines] == ["r", "r"]
            nursery.cancel_scope.cancel()


# --- the upstream that counts ---------------------------------------------------------------------


class Caller:
    """Plain HTTP to one upstream."""

    def __init__(self, port):
        self.port = port

    async def get(self, path, *, method="GET", body=b""):
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                more = await stream.receive_some(65_536)
                data += more
                head, _, rest = data.partition(b"\r\n\r\n")
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                if not more or (length and len(rest) == int(length)):
                    break
        return data


async def until(condition):
    """Real sockets tell nobody when their bytes have arrived: looked at again and again."""
    while not condition():  # noqa: ASYNC110 - see above
        await trio.sleep(0.001)


def noted(ledger, call_id):
    found = ledger._seen[call_id]
    return (found.seen, found.acted)


async def test_requests_are_counted_by_their_call():
    ledger = Ledger()
    async with counting_upstream(ledger) as upstream:
        caller = Caller(upstream.port)
        data = await caller.get("/ok/a-1/300", method="POST", body=b"sent")
        assert wrong_with_answer(data.partition(b"\r\n\r\n")[2], "a-1", b"sent") is None
        assert b" 503 " in await caller.get("/busy/a-2/0")
        assert b" 200 " in await caller.get("/busy/a-2/0")
        assert b" 500 " in await caller.get("/broken/a-3/0")
        assert await caller.get("/cut/a-4/0") == b""
        assert b" 200 " in await caller.get("/cut/a-4/0")
        assert b"a-5 1 2" in await caller.get("/events/a-5/2")
        assert b" 200 " in await caller.get("/slow/a-6/1")
        assert [noted(ledger, f"a-{n}") for n in range(1, 7)] == [
            (1, 1),
            (2, 1),
            (1, 1),
            (2, 2),
            (1, 1),
            (1, 1),
        ]
        upstream.forget()
        assert await caller.get("/cut/a-4/0") == b""


async def test_half_a_request_is_seen_and_not_acted_on():
    ledger = Ledger()
    async with counting_upstream(ledger) as upstream:
        stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
        await stream.send_all(b"POST /ok/a-1/0 HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await stream.aclose()
    assert noted(ledger, "a-1") == (1, 0)


async def test_an_answer_ends_when_its_client_leaves():
    async with counting_upstream(Ledger()) as upstream:
        stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
        await stream.send_all(b"GET /hang/a-1/0 HTTP/1.1\r\n\r\n")
        await until(lambda: upstream.in_progress)
        await stream.aclose()
        await until(lambda: not upstream.in_progress and not upstream.connections)


async def test_a_restart_cuts_connections_and_keeps_the_port_and_the_accounts():
    ledger = Ledger()
    async with counting_upstream(ledger) as upstream:
        port, caller = upstream.port, Caller(upstream.port)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /hang/a-1/0 HTTP/1.1\r\n\r\n")
        await until(lambda: upstream.in_progress)
        upstream.restart(0.01)
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            if not await stream.receive_some():
                raise EOFError
        await stream.aclose()
        while True:
            try:
                assert b" 200 " in await caller.get("/ok/a-1/0")
                break
            except OSError:
                await trio.sleep(0.01)
        assert (upstream.port, noted(ledger, "a-1")) == (port, (2, 2))


async def test_the_other_upstreams_refuse_or_are_silent_or_stand_behind_faults():
    with refusing_port() as refusing, pytest.raises(OSError, match=r"connect|refused"):
        await trio.open_tcp_stream("127.0.0.1", refusing.getsockname()[1])
    async with silent_upstream() as silent:
        stream = await trio.open_tcp_stream("127.0.0.1", silent)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await stream.aclose()
    async with counting_upstream(Ledger()) as upstream, faulty_way(upstream.port) as proxy:
        assert b" 200 " in await Caller(proxy.port).get("/ok/a-1/0")
        proxy.plan = Plan.parse("down:close@5")
        assert await Caller(proxy.port).get("/ok/a-1/0") == b"HTTP/"


# --- samples and verdict --------------------------------------------------------------------------


def test_bugs_that_the_runtime_logged_are_told(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        '{"event":"stopped"}\n{"event":"internal error","request_id":3}\nTraceback (most\n'
    )
    assert [line.partition(": ")[2] for line in bugs_logged(log)] == [
        '{"event":"internal error","request_id":3}',
        "Traceback (most",
    ]


def test_what_is_not_at_rest_is_named():
    assert busy(REST, 0) == []
    assert busy(None, 0) == ["the runtime does not tell its status"]
    found = busy(Told(1, 2, 15, 3, 4, 5, 6, 7), 8)
    assert [int(each.partition(" ")[0]) for each in found] == [1, 2, 3, 4, 5, 7, 8]


def test_the_account_of_the_runtime_is_read():
    status = {
        "in_flight": 1,
        "connections": 2,
        "tasks": 20,
        "admission": {"in_flight": 3, "waiting": 1, "streams": 4, "waiting_streams": 1},
        "pools": [{"idle": 1, "active": 2, "waiting": 3}, {"idle": 1, "active": 0, "waiting": 0}],
        "limits": [{"waiting": 5}],
    }
    assert told(status) == Told(1, 2, 20, 3, 4, 10, 2, 2)
    assert told(None) is None
    assert told({"in_flight": 0, "connections": 0}) == Told(0, 0, 0, 0, 0, 0, 0, 0)


def book_of(tmp_path: Path, memory, files=lambda _: 20, tasks=lambda _: 15, length=400) -> Book:
    """A runtime sampled each second, at rest every 20 s."""
    book = Book(tmp_path / "samples.jsonl")
    for at in range(length):
        is_quiet = at % 20 == 0
        runtime = msgspec.structs.replace(REST, tasks=tasks(at))
        process = Held("runtime 1", memory(at), files(at) + 3, 2)
        client = Held("client async.1", 30.0, 9, 1)
        book.add(
            Sample(
                float(at),
                1,
                at * 100,
                [process, client],
                runtime,
                {"answer": 100},
                {"get": 100},
                is_quiet=is_quiet,
            )
        )
    return book


def broken(book, ledger=None, recoveries=(), recover_s=15.0):
    return verdict(book, ledger or Ledger(), recoveries, recover_s).broken


def test_a_run_that_stays_as_it_is_has_passed(tmp_path):
    book = book_of(tmp_path, lambda at: 40 + at % 3)
    assert broken(book) == []
    lines = [msgspec.json.decode(line) for line in book.path.read_bytes().splitlines()]
    assert len(lines) == 400
    assert lines[0]["type"] == "sample"


def test_leaks_are_found_under_load_and_at_rest(tmp_path):
    memory = broken(book_of(tmp_path, lambda at: 40 + at / 30))
    assert [line.split(":")[1] for line in memory] == [
        " memory_mb of runtime 1",
        " quiet_memory_mb of runtime 1",
    ]
    files = broken(book_of(tmp_path, lambda _: 40.0, files=lambda at: 20 + at // 25))
    assert any("it grows: files" in line for line in files)
    assert any("not back to the base line: runtime 1 has 3" in line for line in files)
    tasks = broken(book_of(tmp_path, lambda _: 40.0, tasks=lambda at: 15 + at // 20))
    assert {line.split(":")[1] for line in tasks} >= {" tasks of runtime 1"}


def test_a_leak_in_a_short_run_has_no_verdict(tmp_path):
    found = verdict(book_of(tmp_path, lambda at: 40.0 + at, length=40), Ledger(), (), 15.0)
    assert found.broken == []
    assert all(each.slope is None for each in found.trends)


def test_what_a_first_load_opens_for_good_is_no_leak_unless_it_is_much(tmp_path):
    def fresh(kept):
        return book_of(tmp_path, lambda _: 40.0, files=lambda at: 20 + (kept if at else 0))

    assert broken(fresh(8)) == []
    assert broken(fresh(14)) == [
        "not back to the base line: runtime 1 has 34 files at rest, and had 20"
    ]


def test_slow_recoveries_and_wrongs_are_told(tmp_path):
    book = book_of(tmp_path, lambda _: 40.0, length=40)
    ledger = Ledger()
    for number in range(30):
        ledger.wrong(f"wrong {number}")
    found = broken(book, ledger, [1.0, 20.0])
    assert found[0] == "recovery: 1 of 2 took more than 15 s, the longest 20.0 s"
    assert (found[1], found[-1], len(found)) == ("wrong 0", "and 10 more", 22)


def test_a_book_counts_what_ended_since_it_was_asked(tmp_path):
    book = Book(tmp_path / "b")
    outcomes = Counter({("get", "answer"): 2, ("post", "answer"): 1})
    assert book.since_last(outcomes) == ({"answer": 3}, {"get": 2, "post": 1})
    outcomes["get", "lost"] += 1
    assert book.since_last(outcomes) == ({"lost": 1}, {"get": 1})
    assert book.since_last(outcomes) == ({}, {})


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    book = book_of(tmp_path, lambda at: 40 + at / 30, length=60)
    for what in ("quiet", "kill runtime", "kill client raw", "weather fine"):
        book.add(Noted(30.0, what, 2.0))
    draw(str(tmp_path / "p.png"), book, "a title")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
