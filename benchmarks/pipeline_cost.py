"""CPU us that the policies add to a call, all together and layer by layer.

Peer: the same HTTP connector over the same transport without any of it. Contestants build up from
there: the lease with the pool's place and the transport, then each layer around those before, which
ends in the pipeline as it is composed. Then that pipeline with every policy off, with limits
configured at four scopes, and with an open circuit, where the call ends at the breaker. Defaults
hold where nothing else is said.

Load shape: one call after another in one process, each with a payload to parse and a small answer
to write, over a transport that answers at once: nothing waits, so what is counted is the work of
the interpreter alone. Contestants take turns in batches, each round in another order, and a figure
is the median of the batches; "us added" is the median of the differences within a round to the row
that it builds on.

Read it so: a tight loop keeps its code in the processor's caches, and a call in a runtime has its
frame, its log line and its turn of the scheduler in between. So the last rows have those too, from
frame to frame: "a whole call" differs by the pipeline alone, and is the dearer and truer figure.

Cheating would be: only the tight loop; refused calls, which are cheaper, among the good; garbage
collected in one contestant's turn only; a limit that is configured and never asked.
"""

from collections.abc import Sequence
from typing import Final

from benchmarks._pipeline_calls import IN_PLACE, NO_POLICIES, WHOLE, Taken, Turns
from benchmarks._processes import run_json
from benchmarks._report import Claim, Options, Report, Row, median, watch_others

__all__ = ["OPTIONS", "SUMMARY", "rows", "run"]

SUMMARY: Final = "CPU us that the policies add to a call, layer by layer"
OPTIONS: Final = Options(rounds=101)
WANTED_US: Final = 25.0


def run(options: Options) -> Report:
    """Measure everybody in batches, in turn."""
    report = Report("pipeline_cost", [])
    with watch_others(report):
        taken = run_json("benchmarks._pipeline_calls", Turns(options.rounds), Taken, core=None)
    report.rows = rows(taken)
    for name, bare in ((WHOLE, NO_POLICIES), (IN_PLACE, taken.builds_on[IN_PLACE])):
        added_us = _added(taken.us[name], taken.us[bare])
        text = f"CPU us over {bare}: {name}"
        report.claims.append(Claim(text, added_us, WANTED_US, at_most=True))
    return report


def rows(taken: Taken) -> list[Row]:
    """A row for each contestant."""
    return [
        {
            "what": name,
            "us a call": median(taken.us[name]),
            "us added": _added(taken.us[name], taken.us[below]) if below else "",
            "to": below,
        }
        for name, below in taken.builds_on.items()
    ]


def _added(own_us: Sequence[float], below_us: Sequence[float]) -> float:
    return median([own - below for own, below in zip(own_us, below_us, strict=True)])
