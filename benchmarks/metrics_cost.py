"""What the metrics cost: CPU us of a call, counted by `Meters`, and ms of the text with full caps.

Peer: the same counts by the children of prometheus-client, bound once, as its manual advises. The
contestants take turns round by round. An ordinary call ends well after one attempt; a hard one was
held up by the queue, retried twice with backoff, and opened a circuit.

Shape: the calls of the metrics alone in one process, nothing around them. The text is made from
more rows than any cap lets through; what it takes is taken in a worker thread, at each scrape.

Cheating would be: a peer that looks its labels up anew at each call, which its manual warns of;
fewer series than ours; a text with few rows.
"""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from benchmarks._report import Claim, Options, Report, Row, median, watch_others
from vastar_runtime.metrics import BreakerRow, Meters, QuotaRow, Snapshot
from vastar_runtime.metrics.cells import SECONDS
from vastar_runtime.policy.breaker import State

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "CPU us of the metrics a call, beside prometheus-client's own; ms of the text"
WANTED_US: Final = 5.0
_CALLS: Final = 20_000
_ROWS: Final = 10_000
_LABELS: Final = ("http", "SUCCESS", "COMPLETED", "upstream")


def run(options: Options) -> Report:
    """Measure both contestants and the text."""
    report = Report("metrics_cost", [])
    meters = Meters(["http"])
    theirs = _theirs()
    us: dict[str, dict[str, list[float]]] = {}
    with watch_others(report):
        for _ in range(options.rounds):
            for what, calls in {
                "an ordinary call": {"ours": _ordinary(meters), "theirs": theirs},
                "a hard call": {"ours": _hard(meters)},
            }.items():
                for who, call in calls.items():
                    us.setdefault(what, {}).setdefault(who, []).append(_cpu_us(call, _CALLS))
        snapshot = _snapshot()
        text_us = [_cpu_us(lambda: meters.render(snapshot), 1) for _ in range(options.rounds + 1)]
    for what, found in us.items():
        row: Row = {"what": what, "Meters us": median(found["ours"]), "prometheus-client us": ""}
        if "theirs" in found:
            row["prometheus-client us"] = median(found["theirs"])
        report.rows.append(row)
    size_kb = len(meters.render(snapshot)) / 1000
    report.rows.append(  # its first time loads the library: not counted
        {"what": "the text", "Meters us": median(text_us[1:]), "prometheus-client us": ""}
    )
    report.notes.append(f"the text has {size_kb:.0f} kB")
    ordinary_us = median(us["an ordinary call"]["ours"])
    report.claims.append(
        Claim("CPU us of an ordinary call's metrics", ordinary_us, WANTED_US, at_most=True)
    )
    return report


def _ordinary(meters: Meters) -> Callable[[], None]:
    def call() -> None:
        meters.call_ended(*_LABELS, duration_s=0.13, first_byte_s=0.12, attempts=1)

    return call


def _hard(meters: Meters) -> Callable[[], None]:
    def call() -> None:
        meters.waited("bulkhead", 0.02)
        for wait_s in (0.03, 0.07):
            meters.retried("transient")
            meters.waited("retry", wait_s)
        meters.gave_up("attempts_spent")
        meters.breaker_changed("tenant", "open")
        meters.call_ended(
            *("http", "TRANSIENT", "SENT_NO_RESPONSE", "upstream"),
            duration_s=0.13,
            first_byte_s=None,
            attempts=3,
        )

    return call


def _theirs() -> Callable[[], None]:
    registry = CollectorRegistry()
    names = ("connector", "error_class", "disposition", "ended_by")
    ended = Counter("calls", "Calls.", names, registry=registry).labels(*_LABELS)
    attempts = Counter("attempts", "Attempts.", names[:1], registry=registry).labels("http")
    duration, first_byte = (
        Histogram(name, "Time.", names[:1], registry=registry, buckets=SECONDS).labels("http")
        for name in ("duration", "first_byte")
    )
    children = {_LABELS: (ended, attempts, duration, first_byte)}

    def call() -> None:
        ended, attempts, duration, first_byte = children[_LABELS]
        ended.inc()
        attempts.inc(1)
        duration.observe(0.13)
        first_byte.observe(0.12)

    return call


def _snapshot() -> Snapshot:
    return Snapshot(
        breakers=tuple(
            BreakerRow("tenant", f"tenant{n}", f"https://host{n}.example.com", State.CLOSED)
            for n in range(_ROWS)
        ),
        quotas=tuple(
            QuotaRow(f"tenant{n}", f"https://host{n}.example.com", n % 500, 500)
            for n in range(_ROWS)
        ),
    )


def _cpu_us(call: Callable[[], object], times: int) -> float:
    """CPU microseconds of one call."""
    began_s = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began_s) / times * 1e6
