"""64 calls to an upstream that takes 100 ms, on one connection: all at once, and one by one.

Peer: the same connection used as the published runtime serves it, which answers the requests of one
connection one after another: the next call goes out when the answer to the last one is there.

Load shape: one process, one connection to a fresh runtime; its first calls open the upstream
connections in both ways of using it, nothing is warm.

Cheating would be: calls that warmed the upstream connections for one of the two ways, several
connections for the calls at once, or an upstream that is quicker with many.
"""

import selectors
import socket
import time
from typing import Final

from benchmarks._load import Link, Template
from benchmarks._processes import running_runtime, running_upstream
from benchmarks._report import Claim, Options, Report, median, watch_others

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "64 calls to a 100 ms upstream on one connection: at once, and one by one"
CALLS: Final = 64
DELAY_MS: Final = 100
WANTED_MS: Final = 300.0
_ONE_BY_ONE_ROUNDS: Final = 1
"""6.4 s each, and nothing in them but waiting."""


def run(options: Options) -> Report:
    """Measure both ways."""
    report = Report("pipelining", [])
    with watch_others(report), running_upstream("--delay-ms", str(DELAY_MS)) as upstream:
        url = f"{upstream}/small"
        at_once_ms = median([_time_ms(url, depth=CALLS) for _ in range(options.rounds)])
        singly_ms = median([_time_ms(url, depth=1) for _ in range(_ONE_BY_ONE_ROUNDS)])
    for name, took_ms in (("at once", at_once_ms), ("one by one", singly_ms)):
        report.rows.append(
            {"who": name, "calls": CALLS, "ms": took_ms, "x one by one": singly_ms / took_ms}
        )
    text = f"ms for {CALLS} calls at once"
    report.claims.append(Claim(text, at_once_ms, WANTED_MS, at_most=True))
    return report


def _time_ms(url: str, *, depth: int) -> float:
    """Milliseconds from the first call sent to the last answer, with `depth` in flight."""
    with running_runtime() as runtime, selectors.DefaultSelector() as selector:
        link = Link(runtime.socket_path, Template(url), depth)
        selector.register(link.socket, selectors.EVENT_READ)
        began_s = time.perf_counter()
        link.ask(list(range(1, depth + 1)))
        asked, answered = depth, 0
        while answered < CALLS:
            selector.select()
            ids = link.take([])
            answered += len(ids)
            more = ids[: CALLS - asked]
            if more:
                asked += len(more)
                link.ask(more)
        took_s = time.perf_counter() - began_s
        link.socket.shutdown(socket.SHUT_RDWR)
        link.socket.close()
    return took_s * 1000
