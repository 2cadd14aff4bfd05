"""The accounts of several workers as one."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.metrics_text import Scraped
from vastar_runtime.metrics import BreakerRow, Meters, PoolRow, QuotaRow, Snapshot
from vastar_runtime.policy.breaker import State
from vastar_runtime.workers.merging import merged_metrics, merged_status


def account(**more: Any) -> dict[str, Any]:
    counts = {"in_flight": 1, "connections": 2, "calls_accepted": 10, "tasks": 7}
    return {**counts, "version": "1", **more}


def test_counts_are_added_and_pools_of_one_key_are_one():
    pool = {"tenant": "a", "workspace": "", "origin": "http://x", "idle": 1, "active": 2}
    merged = merged_status(
        account(draining=False, pools=[{**pool, "waiting": 3}]),
        [account(draining=True, pools=[{**pool, "waiting": 4}, {**pool, "tenant": "b"}])],
    )
    assert (merged["in_flight"], merged["connections"], merged["calls_accepted"]) == (2, 4, 20)
    assert merged["tasks"] == 14
    assert merged["draining"]
    assert merged["version"] == "1"
    assert merged["pools"] == [
        {**pool, "idle": 2, "active": 4, "waiting": 7},
        {**pool, "tenant": "b", "waiting": 0},
    ]
    assert "policies" not in merged


def test_connections_to_databases_are_added_by_source():
    row = {"tenant": "a", "source": "orders", "origin": "postgres://h:5432", "open": 3}
    row |= {"idle": 1, "active": 2, "waiting": 4}
    other = {**row, "source": "stock"}
    merged = merged_status(account(databases=[row]), [account(databases=[row, other]), account()])
    both = {**row, "open": 6, "idle": 2, "active": 4, "waiting": 8}
    assert merged["databases"] == [both, other]


def test_what_the_policies_tell_is_added_and_the_worst_circuit_shown():
    verdict = {"policy": "retry", "mode": "enforce", "passed": 1, "applied": 2, "observed": 3}
    limit = {"policy": "rate_limit", "scope": "tenant", "of": "acme"}

    def one(state: str, available: float, *, waiting: int) -> dict[str, Any]:
        return account(
            pipeline=["deadline"],
            policies=[verdict],
            admission={"in_flight": 2, "waiting": 1},
            breakers=[{"scope": "origin", "origin": "http://x", "state": state}],
            limits=[{**limit, "available": available, "waiting": waiting}],
            keys=3,
        )

    merged = merged_status(
        one("half_open", 5.0, waiting=1),
        [one("open", 2.0, waiting=2), one("strange", 9.0, waiting=0)],
    )
    assert merged["pipeline"] == ["deadline"]
    assert merged["policies"] == [{**verdict, "passed": 3, "applied": 6, "observed": 9}]
    assert merged["admission"] == {"in_flight": 6, "waiting": 3}
    assert [row["state"] for row in merged["breakers"]] == ["open"]
    assert merged["limits"] == [{**limit, "available": 2.0, "waiting": 3}]
    assert merged["keys"] == 3


def text(refusals: int, *, draining: bool = False, idle: int = 1, state: State = State.OPEN) -> str:
    meters = Meters(("http",))
    for _ in range(refusals):
        meters.refused("rate_limit", "tenant")
        meters.waited("queue", 0.3)
    snapshot = Snapshot(
        draining=draining,
        quotas=(QuotaRow("a", "http://x", 500 - refusals, 500),),
        pools=(PoolRow("a", "b", 'http://x/"\\ \n', idle, 2, 3),),
        breakers=(BreakerRow("origin", "", "http://x", state),),
    )
    return meters.render(snapshot).decode()


def refusals(merged: str) -> float | None:
    return Scraped(merged.encode()).value(
        "vastar_refusals_total", policy="rate_limit", scope="tenant"
    )


def test_one_text_is_itself():
    assert merged_metrics([text(3)]) == text(3)
    assert merged_metrics([]) == ""


def test_counters_and_gauges_are_added_but_for_what_is_yes_or_no():
    merged = merged_metrics([text(1, draining=True), text(2, idle=5, state=State.CLOSED)])
    scraped = Scraped(merged.encode())
    assert refusals(merged) == 3
    assert scraped.value("vastar_pool_connections", state="idle") == 6
    assert scraped.value("vastar_draining") == 1
    assert scraped.value("vastar_breakers", scope="origin", state="open") == 1
    assert scraped.value("vastar_retry_quota_tokens", tenant="a", origin="http://x") == 498
    assert scraped.value("vastar_wait_seconds_count", policy="queue") in {None, 3}
    assert (
        scraped.value(
            "vastar_breaker_state", scope="origin", tenant="", origin="http://x", state="open"
        )
        == 1
    )


def test_of_the_dead_only_counters_stay_and_may_be_kept_again():
    kept = merged_metrics([], [text(2, draining=True)])
    assert refusals(kept) == 2
    again = merged_metrics([], [kept, text(1)])
    merged = merged_metrics([text(4)], [again])
    assert refusals(merged) == 7
    scraped = Scraped(merged.encode())
    assert scraped.value("vastar_draining") == 0
    assert scraped.value("vastar_pool_connections", state="idle") == 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_a_sum_does_not_fall_whoever_dies(counts, data):
    texts = [text(count) for count in counts]
    whole = refusals(merged_metrics(texts)) or 0.0
    dead = data.draw(st.integers(0, len(texts)))
    kept = merged_metrics([], texts[:dead])
    assert (refusals(merged_metrics(texts[dead:], [kept])) or 0.0) == whole


def test_numbers_are_written_as_the_format_has_them():
    lines = '# HELP x y\n# TYPE x gauge\nx{a="+"} +Inf\nx{a="-"} -Inf\nx{a="n"} NaN\nx 2e+20\n'
    assert merged_metrics([lines]) == lines
