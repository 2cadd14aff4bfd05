"""What is counted comes out under its labels; a flood of names does not grow anything."""

import subprocess
import sys
import threading

import pytest
from prometheus_client import exposition

from tests.support.metrics_text import Scraped
from vastar_runtime.metrics import CONTENT_TYPE, SERIES_CAP, Meters, Snapshot
from vastar_runtime.metrics.meters import MOST_CONNECTORS
from vastar_runtime.policy.retry import Reason


def call(meters: Meters, connector: str = "http", error_class: str = "SUCCESS") -> None:
    meters.call_ended(
        connector,
        error_class,
        "COMPLETED",
        "upstream",
        duration_s=0.25,
        first_byte_s=0.1,
        attempts=2,
    )


def scraped(meters: Meters) -> Scraped:
    return Scraped(meters.render(Snapshot()))


@pytest.fixture
def meters() -> Meters:
    return Meters(["http", "vastar"])


def test_a_call_is_counted_with_its_times_and_attempts(meters: Meters) -> None:
    call(meters)
    call(meters)
    meters.call_ended(
        "http",
        "RATE_LIMITED",
        "NOT_SENT",
        "policy",
        duration_s=0.001,
        first_byte_s=None,
        attempts=0,
    )
    text = scraped(meters)
    labels = {"error_class": "SUCCESS", "disposition": "COMPLETED", "ended_by": "upstream"}
    assert text.value("vastar_calls_total", connector="http", **labels) == 2
    labels = {"error_class": "RATE_LIMITED", "disposition": "NOT_SENT", "ended_by": "policy"}
    assert text.value("vastar_calls_total", connector="http", **labels) == 1
    assert text.value("vastar_attempts_total", connector="http") == 4
    for name, count, total in (
        ("vastar_call_duration_seconds", 3, 0.501),
        ("vastar_time_to_first_byte_seconds", 2, 0.2),
    ):
        assert text.value(f"{name}_count", connector="http") == count
        assert text.value(f"{name}_sum", connector="http") == pytest.approx(total)
    bucket = "vastar_call_duration_seconds_bucket"
    assert text.value(bucket, connector="http", le="0.1") == 1
    assert text.value(bucket, connector="http", le="0.25") == 3
    assert text.value(bucket, connector="http", le="+Inf") == 3


def test_the_policies_are_counted(meters: Meters) -> None:
    meters.retried("transient")
    meters.gave_up(Reason.QUOTA_SPENT.value)
    meters.refused("rate_limit", "tenant")
    meters.waited("bulkhead", 0.5)
    meters.waited("bulkhead", 20.0)
    meters.breaker_changed("tenant", "open")
    meters.hedged("won")
    text = scraped(meters)
    assert text.value("vastar_retries_total", reason="transient") == 1
    assert text.value("vastar_retries_given_up_total", reason="quota_spent") == 1
    assert text.value("vastar_refusals_total", policy="rate_limit", scope="tenant") == 1
    assert text.value("vastar_wait_seconds_sum", policy="bulkhead") == 20.5
    assert text.value("vastar_wait_seconds_bucket", policy="bulkhead", le="0.5") == 1
    assert text.value("vastar_wait_seconds_bucket", policy="bulkhead", le="30.0") == 2
    assert text.value("vastar_breaker_transitions_total", scope="tenant", after="open") == 1
    assert text.value("vastar_hedges_total", outcome="won") == 1


def test_what_alerts_look_at_is_there_before_it_happens(meters: Meters) -> None:
    text = scraped(meters)
    for reason in Reason:
        assert text.value("vastar_retries_given_up_total", reason=reason.value) == 0
    assert text.value("vastar_breaker_transitions_total", scope="origin", after="open") == 0
    assert text.value("vastar_calls_total") is None


def test_unknown_connectors_count_as_other_and_leave_nothing_behind(meters: Meters) -> None:
    for number in range(10_000):
        call(meters, f"name{number}")
    call(meters)
    text = scraped(meters)
    assert {labels["connector"] for labels in text.series("vastar_calls_total")} == {
        "http",
        "other",
    }
    assert text.value("vastar_attempts_total", connector="other") == 20_000
    assert text.value("vastar_call_duration_seconds_count", connector="other") == 10_000
    assert len(meters._call_cells) == 1


def test_known_connectors_beyond_the_cap_count_as_other() -> None:
    names = [f"c{number}" for number in range(MOST_CONNECTORS + 5)]
    meters = Meters([*names, *names])
    for name in names:
        call(meters, name)
    text = scraped(meters)
    shown = {labels["connector"] for labels in text.series("vastar_attempts_total")}
    assert shown == {*names[:MOST_CONNECTORS], "other"}
    assert text.value("vastar_attempts_total", connector="other") == 10


@pytest.mark.parametrize("name", ["http", "stranger"])
def test_no_other_label_can_be_flooded_either(meters: Meters, name: str) -> None:
    for number in range(5000):
        call(meters, name, f"class{number}")
        for count in (meters.retried, meters.gave_up, meters.hedged):
            count(f"x{number}")
        for count_two in (meters.refused, meters.breaker_changed):
            count_two(f"x{number}", f"y{number}")
        meters.waited(f"x{number}", 1.0)
    text = scraped(meters)
    for family in text.families.values():
        label_sets = {
            tuple(value for label, value in sorted(sample.labels.items()) if label != "le")
            for sample in family.samples
        }
        assert len(label_sets) <= SERIES_CAP + 1, family.name
    assert len(meters._call_cells) <= SERIES_CAP
    counted = (
        text.value("vastar_calls_total", **labels) for labels in text.series("vastar_calls_total")
    )
    assert sum(filter(None, counted)) == 5000
    assert len(meters.render(Snapshot())) < 500_000


def test_two_runtimes_in_one_process_count_apart(meters: Meters) -> None:
    other = Meters(["http"])
    call(meters)
    assert scraped(other).series("vastar_calls_total") == []


def test_rendering_from_another_thread_while_counting_loses_nothing(meters: Meters) -> None:
    texts: list[Scraped] = []
    done = threading.Event()

    def render() -> None:
        while not done.is_set() or len(texts) < 2:
            texts.append(scraped(meters))

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=render)
    thread.start()
    try:
        for number in range(8000):
            call(meters, "http", f"class{number % 300}")
            meters.waited(f"x{number % 300}", 0.1)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval_s)
    assert scraped(meters).value("vastar_attempts_total", connector="http") == 16_000
    counts = [text.value("vastar_attempts_total", connector="http") or 0 for text in texts]
    assert counts == sorted(counts)


def test_the_content_type_is_that_of_the_text() -> None:
    known = getattr(exposition, "CONTENT_TYPE_PLAIN_0_0_4", exposition.CONTENT_TYPE_LATEST)
    assert known == CONTENT_TYPE


def test_counting_needs_no_library() -> None:
    """It takes 2 MB, which only those pay who are scraped."""
    source = (
        "import sys; from vastar_runtime.metrics import Meters\n"
        "Meters(['http']).waited('x', 1.0)\n"
        "assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", source], check=True)
