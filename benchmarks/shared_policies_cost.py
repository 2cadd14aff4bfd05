"""CPU us that a call costs more where policies share their state with other workers of the host.

Peer: the same pipeline over machines of its own, as a runtime with one worker has them.

Load shape: as `pipeline_cost`: one call after another in one process over a transport that answers
at once; contestants take turns in batches, and a figure is the median of the batches. The memory is
laid out for two workers; a busy sibling is a process that makes calls to the same keys all the
while.

What would be cheating: to leave out what the lock costs by measuring wall time on a machine with
nothing to do; to give each contestant keys that nobody else looks at. What this does not show:
calls that wait for a lock (a sibling holds it for some 5 us), and what is paid where something is
full or open, which is more.
"""

from typing import Final

from benchmarks._pipeline_calls import Turns
from benchmarks._processes import run_json
from benchmarks._report import Claim, Options, Report, Row, median, watch_others
from benchmarks._shared_calls import DEFAULTS, OWN_SUFFIX, Taken

__all__ = ["OPTIONS", "SUMMARY", "rows", "run"]

SUMMARY: Final = "CPU us that a call costs more where several workers share the policies' state"
OPTIONS: Final = Options(rounds=101)
WANTED_US: Final = 15.0


def run(options: Options) -> Report:
    """Measure everybody in batches, in turn."""
    report = Report("shared_policies_cost", [])
    with watch_others(report):
        taken = run_json("benchmarks._shared_calls", Turns(options.rounds), Taken, core=None)
    report.rows = rows(taken)
    for row in report.rows:
        if str(row["what"]).startswith(DEFAULTS) and row["to"]:
            text = f"CPU us over own machines: {row['what']}"
            report.claims.append(Claim(text, float(row["us added"]), WANTED_US, at_most=True))
    return report


def rows(taken: Taken) -> list[Row]:
    """A row for each contestant, beside the one with machines of its own."""
    found: list[Row] = []
    for name, us in taken.us.items():
        own = name.split(",")[0] + OWN_SUFFIX
        row: Row = {"what": name, "us a call": median(us), "us added": "", "to": ""}
        if name != own:
            row["to"] = own
            row["us added"] = median([a - b for a, b in zip(us, taken.us[own], strict=True)])
        found.append(row)
    return found
