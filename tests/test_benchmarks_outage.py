"""The outage benchmark: a course is repeatable, its figures are what it says, it can be drawn."""

import math
from pathlib import Path

import msgspec
import pytest

from benchmarks import outage
from benchmarks._outage_course import CallEnd, Course, Plan, simulate
from benchmarks._outage_picture import draw, per_second
from benchmarks._outage_upstream import Outage
from benchmarks._report import Options

SHORT = Plan(tenants=2, calls_per_s=20.0, before_s=2.0, outage_s=2.0, after_s=8.0, timeout_s=2.0)


def plan(kind: Outage, contestant: str) -> Plan:
    policies = {name: dict(table) for name, table in outage.CONTESTANTS[contestant].items()}
    return msgspec.structs.replace(SHORT, outage=kind, policies=policies)


def test_one_seed_is_one_course() -> None:
    first, again = (simulate(plan(Outage.UNAVAILABLE, "policies")) for _ in range(2))
    assert msgspec.json.encode(first) == msgspec.json.encode(again)
    other = simulate(msgspec.structs.replace(SHORT, seed=2))
    assert [call.at_s for call in other.calls] != [call.at_s for call in first.calls]


@pytest.mark.parametrize("kind", list(Outage), ids=lambda kind: kind.name.lower())
def test_each_outage_takes_the_answers_and_gives_them_back(kind: Outage) -> None:
    course = simulate(plan(kind, "none"))
    assert all(call.done_s < math.inf for call in course.calls)
    lost = [call.at_s for call in course.calls if not call.is_good]
    assert lost
    # What is on its way when the upstream dies, and what TCP tries again after it is back.
    assert SHORT.before_s - 0.1 < min(lost)
    assert max(lost) < SHORT.return_s


def test_the_contestants_differ_in_what_they_send() -> None:
    told = {
        name: outage.figures(SHORT, simulate(plan(Outage.REFUSED, name)))
        for name in outage.CONTESTANTS
    }
    assert told["none"].attempts >= told["none"].calls > told["policies"].attempts
    assert told["retries alone"].attempts > 2.5 * told["none"].attempts
    assert told["policies"].refused > 0
    assert told["none"].refused == told["retries alone"].refused == 0


def test_the_figures_of_a_course() -> None:
    """An outage from 2 to 4: a refusal, a failure, a rescue, and a straggler behind it."""
    good = [CallEnd(at_s, at_s + 0.1, is_good=True, attempts=1) for at_s in (0.5, 1.5, 5.5, 7.0)]
    away = [
        CallEnd(2.0, 2.25),
        CallEnd(2.5, 4.0, attempts=3),
        CallEnd(3.5, 4.5, is_good=True, attempts=2),
        CallEnd(4.25, 4.25),
    ]
    calls = sorted(good + away, key=lambda call: call.at_s)
    course = Course(calls, sent_s=[1.5, 2.5, 2.6, 2.7, 3.5, 4.5], arrived_s=[4.5, 1.5, 5.4, 7.0])
    told = outage.figures(SHORT, course)
    assert (told.calls, told.attempts) == (3, 4)
    assert (told.delivered, told.refused, told.failed) == (1, 1, 1)
    assert told.refusal_p99_ms == pytest.approx(250)
    assert told.failure_p50_ms == pytest.approx(1500)
    assert told.back_s == pytest.approx(0.3)
    assert (told.peak_per_s, told.load_peak_per_s) == (2, 2)


def test_what_is_never_well_again_is_never_back() -> None:
    calls = [CallEnd(float(at_s), at_s + 0.1) for at_s in range(12)]
    told = outage.figures(SHORT, Course(calls, sent_s=[], arrived_s=[]))
    assert told.back_s == math.inf
    assert told.peak_per_s == 0


@pytest.mark.slow
def test_the_picture_is_drawn(tmp_path: Path) -> None:
    course = Course([CallEnd(0.5, 1.0, is_good=True, attempts=1)], [0.5], [0.5])
    path = tmp_path / "outage.png"
    draw(str(path), SHORT, {"refused": dict.fromkeys(outage.CONTESTANTS, course)})
    assert path.read_bytes().startswith(b"\x89PNG")
    assert per_second([0.5, 0.6, 3.0, 99.0], SHORT) == [2, 0, 0, 1] + [0] * 8


@pytest.mark.slow
def test_the_outage_runs(tmp_path: Path) -> None:
    path = tmp_path / "made" / "outage.png"
    report = outage.run(Options(rounds=1, output=str(path)), SHORT)
    assert {(row["outage"], row["who"]) for row in report.rows} == {
        (kind.value, name) for kind in Outage for name in outage.CONTESTANTS
    }
    assert len(report.claims) == 2 * len(Outage)
    assert path.exists()
    assert any(str(path) in line for line in report.lines())
