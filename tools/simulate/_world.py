"""What the invariants look at: the runtime under simulation and all that was seen around it."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from tools.simulate._callers import Callers
from tools.simulate._records import CallRecord, Key, Records
from tools.simulate._setup import Setup
from tools.simulate._upstreams import Upstreams
from vastar_runtime.assembly import Runtime
from vastar_runtime.pipeline import Machines, Surroundings
from vastar_runtime.pipeline.inspecting import snapshot
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.policy.modes import Mode
from vastar_runtime.transport import PoolStatus

if TYPE_CHECKING:
    from tools.simulate._rules_breakers import Watch
    from tools.simulate._rules_fairness import Turns
    from tools.simulate._rules_limits import Meter
    from tools.simulate._rules_retries import Purse

__all__ = ["EPSILON_S", "Broken", "Rule", "World"]

_COUNTED: Final = re.compile(r"^vastar_calls_total\{(.*)\} (.*)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')

EPSILON_S: Final = 1e-6
"""Times are floats; what is less apart is at the same time."""


class Broken(Exception):  # noqa: N818 - a finding, read as "the rule is broken"
    """An invariant does not hold.

    Attributes:
        rule: its name.
        what: what was seen instead.
        step: in which step of the run, and `at_s` when; set by the run.
    """

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
        self.what = what
        self.step = 0
        self.at_s = 0.0


@attrs.define(eq=False)
class World:
    """Everything there is.

    Attributes:
        errors: tells the runtime's internal errors since it was asked last.
        owners: (tenant, workspace) of each line to an upstream.
        purses, meters, rests_s, watches, turns: what the invariants keep between looks.
        surplus_tasks: at the end, tasks that were not there at the start.
        epoch: configurations taken up since the first.
        draining_since_s: when the runtime was told to drain.
    """

    setup: Setup
    runtime: Runtime
    upstreams: Upstreams
    callers: Callers
    records: Records
    errors: Callable[[], list[str]]
    owners: dict[int, tuple[str, str]] = attrs.field(factory=dict)
    purses: "dict[tuple[str, str], Purse]" = attrs.field(factory=dict)
    meters: "dict[tuple[str, str, str], Meter]" = attrs.field(factory=dict)
    rests_s: dict[Key, tuple[float, float]] = attrs.field(factory=dict)
    watches: "dict[tuple[str, str], Watch]" = attrs.field(factory=dict)
    turns: "dict[tuple[str, str], Turns]" = attrs.field(factory=dict)
    surplus_tasks: int = 0
    epoch: int = 0
    draining_since_s: float | None = None

    @property
    def now_s(self) -> float:
        """The virtual time."""
        return trio.current_time()

    def is_current(self, call: CallRecord) -> bool:
        """Whether it was made under the configuration that holds now."""
        return call.epoch == self.epoch

    def reloaded(self) -> None:
        """Another configuration holds: what was counted by the numbers of the last one is void."""
        self.epoch += 1
        self.meters.clear()
        self.turns.clear()
        for watch in self.watches.values():
            watch.passed.clear()
        for (tenant, origin), purse in self.purses.items():
            # What is missing stays missing, so a full one is the most there can be.
            settings = self.machines.book.of(tenant=tenant, origin=origin).retry_quota
            purse.tokens = settings.most_tokens

    def policies(self, key: Key) -> CallPolicies:
        """What is configured for a key."""
        return self.machines.book.of(*key)

    def is_hedged(self, key: Key) -> bool:
        """Whether two attempts of a call may be under way at once."""
        return self.policies(key).hedging.mode is Mode.ENFORCE

    def counted_calls(self) -> Counter[tuple[str, str]]:
        """What the runtime's metrics say: calls of connector http by class and disposition."""
        around = self.around
        text = around.meters.render(snapshot(around, self.runtime.state)).decode()
        counts: Counter[tuple[str, str]] = Counter()
        for labels, value in _COUNTED.findall(text):
            pairs = dict(_LABEL.findall(labels))
            counts[pairs["error_class"], pairs["disposition"]] += int(float(value))
        return counts

    def pools(self) -> list[PoolStatus]:
        """What connections there are."""
        return self.around.transport.stats()

    @property
    def machines(self) -> Machines:
        """The policies' state."""
        return self.around.machines

    @property
    def around(self) -> Surroundings:
        """What its layers share."""
        return self.runtime._around  # noqa: SLF001 - the invariants look inside


Rule: TypeAlias = Callable[[World], Iterator[str]]
"""Gives a sentence for each thing that is not as it should be. Its name is the rule's."""
