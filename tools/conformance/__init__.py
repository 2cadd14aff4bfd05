"""Does an implementation keep to the connector protocol? Rules, each with a verdict and a reason.

`python -m tools.conformance --socket PATH` plays them against whoever listens there: the captured
calls of the published SDKs, byte for byte, and the rules of `fbs/README.md`. In a test:

    results = await play_all(chosen_rules(quick=True), World(connect, upstream, wall_clock_ms))
"""

from tools.conformance._rules import Rule
from tools.conformance._run import Result, Verdict, chosen_rules, play_all, table
from tools.conformance._upstream import Upstream, serving_upstream
from tools.conformance._world import World

__all__ = [
    "Result",
    "Rule",
    "Upstream",
    "Verdict",
    "World",
    "chosen_rules",
    "play_all",
    "serving_upstream",
    "table",
]
