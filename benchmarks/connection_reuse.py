"""What a kept connection is worth: the first call to a TLS upstream beside the calls after it.

Peer: the runtime itself. "first" is the first call of a workspace, which has no connection yet
(they are kept apart by tenant and workspace): lookup, connect, handshake, and the GET. "warm" is
the next call of each of the same workspaces, over the connection that the first one left.

Load shape: one blocking caller, one call at a time, 27 bytes of answer; an upstream on this
machine with a certificate of an authority that is made for the run and trusted by configuration.
Rounds, each with a fresh runtime, tell their p50; the median of these is shown.

Read it so: the upstream is next door. Each round trip of a real network adds to "first" three times
(connect, handshake, GET) and to "warm" once: with a trip of R the ratio is (first + 3 R) over
(warm + R), which is less than here where R is long, and then it saves 2 R in every call.

Cheating would be: a certificate that is not checked; a lookup or a loaded TLS library only on the
side of "first" (one call before the first ones takes these); session tickets left out upstream.
"""

from typing import Final

from benchmarks._one_call import OneCallSpec, OneCallTimes
from benchmarks._processes import cores, run_json, running_runtime
from benchmarks._report import Claim, Options, Report, median, watch_others
from benchmarks._tls_upstream import running_tls_upstream

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "first call against warm call on a TLS upstream"
WANTED_RATIO: Final = 10.0
_WORKSPACES_PER_S: Final = 100


def run(options: Options) -> Report:
    """A fresh runtime in every round."""
    report = Report("connection_reuse", [])
    where = cores(pin=options.pin)
    first_us, warm_us = [], []
    with watch_others(report), running_tls_upstream(core=where.other) as upstream:
        for _ in range(options.rounds):
            with running_runtime("--config", upstream.config_file, core=where.measured) as runtime:
                count = max(int(options.seconds * _WORKSPACES_PER_S), 1)
                spec = OneCallSpec("first", runtime.socket_path, f"{upstream.url}/small", count)
                times = run_json("benchmarks._one_call", spec, OneCallTimes, core=where.other)
            first_us.append(median(times.us))
            warm_us.append(median(times.warm_us))
    ratios = [first / warm for first, warm in zip(first_us, warm_us, strict=True)]
    report.rows = [
        {"what": "first call", "p50 us": median(first_us)},
        {"what": "warm call", "p50 us": median(warm_us)},
    ]
    report.claims = [
        Claim(
            "p50 of a first call over that of a warm one",
            median(ratios),
            WANTED_RATIO,
            at_most=False,
        )
    ]
    return report
