"""The state of the runtime as a scraper sees it: complete where small, honest where capped."""

import random

import pytest

from tests.support.metrics_text import Scraped
from vastar_runtime.metrics import (
    SERIES_CAP,
    BreakerRow,
    DatabaseRow,
    LimiterRow,
    Meters,
    PoolRow,
    QuotaRow,
    Snapshot,
    VerdictRow,
)
from vastar_runtime.policy.breaker import Breaker, BreakerSettings, Evidence, Permit, State
from vastar_runtime.policy.modes import Mode


def scraped(snapshot: Snapshot) -> Scraped:
    return Scraped(Meters([]).render(snapshot))


def test_the_counts_of_the_moment() -> None:
    text = scraped(
        Snapshot(
            calls_in_flight=7,
            connections=3,
            draining=True,
            admitted_calls=4,
            admitted_streams=2,
            waiting_calls=1,
            waiting_streams=5,
            limiters=(
                LimiterRow("rate_limit", "tenant", 2),
                LimiterRow("rate_limit", "tenant", 3),
                LimiterRow("token_limit", "origin", 1),
            ),
            pools=(
                PoolRow("a", "", "https://x", 1, 2, 3),
                PoolRow("b", "w", "https://x", 10, 20, 30),
                PoolRow("b", "w", "https://y", 0, 1, 0),
            ),
            verdicts=(VerdictRow("bulkhead", Mode.OBSERVE, 100, 0, 9),),
        )
    )
    assert text.value("vastar_calls_in_flight") == 7
    assert text.value("vastar_caller_connections") == 3
    assert text.value("vastar_draining") == 1
    assert text.value("vastar_in_flight", kind="call") == 4
    assert text.value("vastar_in_flight", kind="stream") == 2
    assert text.value("vastar_queue_depth", kind="call") == 1
    assert text.value("vastar_queue_depth", kind="stream") == 5
    assert text.value("vastar_queue_depth", kind="connection") == 33
    assert text.value("vastar_limiter_waiting", policy="rate_limit", scope="tenant") == 5
    assert text.value("vastar_limiter_waiting", policy="token_limit", scope="origin") == 1
    assert text.value("vastar_pool_connections", state="idle") == 11
    assert text.value("vastar_pool_connections", state="busy") == 23
    assert text.value("vastar_origin_connections", origin="https://x", state="busy") == 22
    assert text.value("vastar_origin_connections", origin="https://y", state="idle") == 0
    for verdict, count in (("passed", 100), ("applied", 0), ("observed", 9)):
        labels = {"policy": "bulkhead", "mode": "observe", "verdict": verdict}
        assert text.value("vastar_policy_verdicts_total", **labels) == count
    assert scraped(Snapshot()).value("vastar_draining") == 0


def state_of(text: Scraped) -> dict[str, float | None]:
    labels = {"scope": "tenant", "tenant": "acme", "origin": "https://api.test"}
    return {
        state.value: text.value("vastar_breaker_state", **labels, state=state.value)
        for state in State
    }


def test_the_gauge_changes_with_the_transition_itself() -> None:
    """Rule 3 of DEFAULTS.md, with a real breaker through all of its states."""
    breaker = Breaker(BreakerSettings(no_answer_run=1, open_s=10))
    meters = Meters([])

    def read() -> Scraped:
        row = BreakerRow("tenant", "acme", "https://api.test", breaker.state)
        return Scraped(meters.render(Snapshot(breakers=(row,))))

    def attempt(now_s: float, evidence: Evidence) -> None:
        permit = breaker.admit(now_s)
        assert isinstance(permit, Permit)
        breaker.report(permit, evidence, now_s, random_ratio=0.0)

    assert state_of(read()) == {"closed": 1, "open": 0, "half_open": 0}
    attempt(0.0, Evidence.NO_ANSWER)
    text = read()
    assert state_of(text) == {"closed": 0, "open": 1, "half_open": 0}
    assert text.value("vastar_breakers", scope="tenant", state="open") == 1
    assert text.value("vastar_breakers", scope="tenant", state="closed") == 0
    probe = breaker.admit(100.0)
    assert isinstance(probe, Permit)
    assert state_of(read()) == {"closed": 0, "open": 0, "half_open": 1}
    breaker.report(probe, Evidence.SUCCESS, 100.0, random_ratio=0.0)
    assert state_of(read()) == {"closed": 1, "open": 0, "half_open": 0}


def test_of_many_breakers_those_that_are_not_closed_are_shown_and_all_are_counted() -> None:
    rows = [BreakerRow("origin", "", f"https://a{n}", State.CLOSED) for n in range(5000)]
    rows += [BreakerRow("tenant", f"t{n}", "https://x", State.HALF_OPEN) for n in range(4)]
    rows += [BreakerRow("tenant", f"u{n}", "https://x", State.OPEN) for n in range(50)]
    random.Random(7).shuffle(rows)
    text = scraped(Snapshot(breakers=tuple(rows), closed_unlisted={"origin": 100_000}))
    series = text.series("vastar_breaker_state")
    assert len(series) <= SERIES_CAP
    shown = {(labels["tenant"], labels["origin"]) for labels in series}
    assert len(series) == 3 * len(shown)
    assert {(f"u{n}", "https://x") for n in range(50)} < shown
    assert {(f"t{n}", "https://x") for n in range(4)} < shown
    assert text.value("vastar_breakers", scope="origin", state="closed") == 105_000
    assert text.value("vastar_breakers", scope="tenant", state="half_open") == 4
    assert text.value("vastar_breakers", scope="tenant", state="open") == 50
    dropped = text.value("vastar_series_dropped", family="vastar_breaker_state")
    assert dropped == 3 * 105_054 - len(series)


def test_the_same_breakers_are_shown_in_any_order() -> None:
    rows = [BreakerRow("tenant", f"t{n}", "https://x", State.CLOSED) for n in range(500)]
    once = scraped(Snapshot(breakers=tuple(rows))).series("vastar_breaker_state")
    assert once == scraped(Snapshot(breakers=tuple(rows[::-1]))).series("vastar_breaker_state")


def test_of_many_quotas_the_emptiest_are_shown() -> None:
    rows = [QuotaRow(f"t{n}", "https://x", 500, 500) for n in range(1000)]
    rows += [QuotaRow(f"low{n}", "https://x", n, 500) for n in range(150)]
    rows += [QuotaRow("none", "https://x", 0, 0)]
    text = scraped(Snapshot(quotas=tuple(rows), full_unlisted=7))
    shown = {labels["tenant"] for labels in text.series("vastar_retry_quota_tokens")}
    assert len(shown) == SERIES_CAP
    assert {"none", *(f"low{n}" for n in range(150))} < shown
    assert text.value("vastar_retry_quota_tokens", tenant="low3", origin="https://x") == 3
    dropped = text.value("vastar_series_dropped", family="vastar_retry_quota_tokens")
    assert dropped == 1000 + 150 + 1 + 7 - SERIES_CAP


def test_of_many_origins_the_busiest_are_shown_and_the_sum_is_of_all() -> None:
    rows = [PoolRow("a", "", f"https://{n}", 1, 0, 0) for n in range(300)]
    rows.append(PoolRow("a", "", "https://busy", 0, 200, 0))
    text = scraped(Snapshot(pools=tuple(rows)))
    series = text.series("vastar_origin_connections")
    assert len(series) == SERIES_CAP
    assert series[0]["origin"] == "https://busy"
    assert text.value("vastar_pool_connections", state="idle") == 300
    dropped = text.value("vastar_series_dropped", family="vastar_origin_connections")
    assert dropped == 2 * 301 - SERIES_CAP


def test_databases_are_connections_too_and_those_with_lines_are_shown_first() -> None:
    rows = [DatabaseRow("a", f"s{n}", "postgres://h:1", 2, 1, 0) for n in range(100)]
    rows.append(DatabaseRow("b", "s", "postgres://h:2", 0, 3, 5))
    text = scraped(Snapshot(databases=tuple(rows), pools=(PoolRow("a", "", "https://x", 1, 1, 1),)))
    labels = {"tenant": "b", "source": "s"}
    assert text.value("vastar_database_connections", state="busy", **labels) == 3
    assert text.value("vastar_database_connections", state="waiting", **labels) == 5
    assert text.value("vastar_pool_connections", state="idle") == 201
    assert text.value("vastar_pool_connections", state="busy") == 104
    assert text.value("vastar_queue_depth", kind="connection") == 6
    assert text.value("vastar_origin_connections", origin="postgres://h:1", state="idle") == 200
    assert len(text.series("vastar_database_connections")) == SERIES_CAP // 3 * 3
    dropped = text.value("vastar_series_dropped", family="vastar_database_connections")
    assert dropped == 3 * 101 - SERIES_CAP // 3 * 3


def test_a_small_runtime_drops_nothing() -> None:
    text = scraped(Snapshot(breakers=(BreakerRow("origin", "", "https://x", State.CLOSED),)))
    for labels in text.series("vastar_series_dropped"):
        assert text.value("vastar_series_dropped", **labels) == 0


@pytest.mark.parametrize("evil", ['a"b', "a\\", "a\nb", "a\rb", "{}", "\0", "\ud800", "x" * 9999])
def test_names_of_callers_cannot_break_the_text(evil: str) -> None:
    """`Scraped` also refuses a series that comes twice."""
    rows = [BreakerRow("tenant", name, evil, State.OPEN) for name in (evil, evil + "!", "t")]
    text = scraped(Snapshot(breakers=tuple(rows), quotas=(QuotaRow(evil, evil, 3, 500),)))
    assert len(text.series("vastar_breaker_state")) == 9
    (labels,) = text.series("vastar_retry_quota_tokens")
    assert text.value("vastar_retry_quota_tokens", **labels) == 3
    assert max(map(len, labels.values())) <= 120
