"""The text as a whole: which metrics there are, and that each says what it is."""

from tests.support.metrics_text import Scraped
from vastar_runtime.metrics import Meters, Snapshot

METRICS = {
    "vastar_attempts_total": "counter",
    "vastar_breaker_state": "gauge",
    "vastar_breaker_transitions_total": "counter",
    "vastar_breakers": "gauge",
    "vastar_call_duration_seconds": "histogram",
    "vastar_caller_connections": "gauge",
    "vastar_calls_in_flight": "gauge",
    "vastar_calls_total": "counter",
    "vastar_draining": "gauge",
    "vastar_hedges_total": "counter",
    "vastar_in_flight": "gauge",
    "vastar_limiter_waiting": "gauge",
    "vastar_origin_connections": "gauge",
    "vastar_database_connections": "gauge",
    "vastar_policy_verdicts_total": "counter",
    "vastar_pool_connections": "gauge",
    "vastar_queue_depth": "gauge",
    "vastar_refusals_total": "counter",
    "vastar_retries_given_up_total": "counter",
    "vastar_retries_total": "counter",
    "vastar_retry_quota_tokens": "gauge",
    "vastar_series_dropped": "gauge",
    "vastar_time_to_first_byte_seconds": "histogram",
    "vastar_wait_seconds": "histogram",
}
"""People build dashboards and alerts on these: a change here breaks theirs."""


def test_every_metric_is_known_and_documented() -> None:
    families = Scraped(Meters(["http"]).render(Snapshot())).families
    assert {name: family.type for name, family in families.items()} == METRICS
    for name, family in families.items():
        assert len(family.documentation.split()) >= 4, name
        assert family.documentation.endswith("."), name


def test_the_text_is_plain_lines() -> None:
    lines = Meters(["http"]).render(Snapshot()).split(b"\n")
    assert lines.pop() == b""
    assert all(
        line.startswith((b"vastar_", b"# HELP vastar_", b"# TYPE vastar_")) for line in lines
    )


def test_a_histogram_adds_up() -> None:
    meters = Meters([])
    for wait_s in (0.0, 0.002, 0.002, 3.0, 1000.0):
        meters.waited("retry", wait_s)
    text = Scraped(meters.render(Snapshot()))
    counts = [
        text.value("vastar_wait_seconds_bucket", **labels)
        for labels in text.series("vastar_wait_seconds_bucket")
    ]
    assert counts[:2] == [1, 3]
    assert counts == sorted(counts, key=float)  # type: ignore[arg-type]
    assert counts[-2:] == [4, 5]
    assert text.value("vastar_wait_seconds_count", policy="retry") == 5
