"""Everything that is counted as it happens, and the text of it all.

One `Meters` a runtime, with nothing global: several runtimes in one process count apart. What a
call touches is looked up once for each combination of its labels and then found by one dict
look-up. Each name and unit is explained beside it, in the words that the text carries.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from vastar_runtime.late_modules import late_modules
from vastar_runtime.metrics.cells import Count, Distribution, Family
from vastar_runtime.metrics.labels import OTHER
from vastar_runtime.metrics.snapshot import Snapshot
from vastar_runtime.policy.breaker import State
from vastar_runtime.policy.retry import Reason
from vastar_runtime.policy.verdicts import Scope

__all__ = ["CONTENT_TYPE", "MOST_CONNECTORS", "SERIES_CAP", "Meters"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Meters.render` gives."""
SERIES_CAP: Final = 200
"""Label sets of one metric; a distribution, which takes 21 lines for each, has far fewer."""
MOST_CONNECTORS: Final = 20
_MOST_POLICIES: Final = 30


@attrs.frozen
class _CallCells:
    """What the end of a call touches."""

    ended: Count
    duration: Distribution
    first_byte: Distribution
    attempts: Count


class Meters:
    """The counts of one runtime. Count from one thread; render from any.

    Args:
        connectors: the names that count under themselves, at most `MOST_CONNECTORS`. Callers
            choose names too: every other one counts as `other`.
    """

    def __init__(self, connectors: Iterable[str]) -> None:
        known = list(dict.fromkeys(connectors))[:MOST_CONNECTORS]
        self._connectors: Mapping[str, str] = MappingProxyType({name: name for name in known})
        self._call_cells: dict[tuple[str, str, str, str], _CallCells] = {}
        self._calls = Family(
            Count,
            "vastar_calls_total",
            "Calls that ended: their outcome, how far they got, who ended them.",
            ("connector", "error_class", "disposition", "ended_by"),
            SERIES_CAP,
        )
        self._durations = Family(
            Distribution,
            "vastar_call_duration_seconds",
            "Time from the acceptance of a call to its end.",
            ("connector",),
            MOST_CONNECTORS + 1,
        )
        self._first_bytes = Family(
            Distribution,
            "vastar_time_to_first_byte_seconds",
            "Time from sending a call's last request to the first byte of the response to it.",
            ("connector",),
            MOST_CONNECTORS + 1,
        )
        self._attempts = Family(
            Count,
            "vastar_attempts_total",
            "Attempts made for the calls that ended, their first ones included.",
            ("connector",),
            MOST_CONNECTORS + 1,
        )
        self._retries = _counts(
            "vastar_retries_total",
            "Retries that were decided on, by what called for them.",
            "reason",
        )
        self._given_up = _counts(
            "vastar_retries_given_up_total",
            "Results that stood without a further attempt, by why there was none.",
            "reason",
        )
        self._refusals = _counts(
            "vastar_refusals_total",
            "Refusals by the runtime's own policies, by whose share was used up.",
            "policy",
            "scope",
        )
        self._waits = Family(
            Distribution,
            "vastar_wait_seconds",
            "Time that calls spent waiting for a policy: queue, rate limit, backoff.",
            ("policy",),
            _MOST_POLICIES,
        )
        self._transitions = _counts(
            "vastar_breaker_transitions_total",
            "Transitions of circuit breakers, by the state after them.",
            "scope",
            "after",
        )
        self._hedges = _counts(
            "vastar_hedges_total", "Second requests sent beside a slow one, by outcome.", "outcome"
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show what alerts look at before it first happens: a rise from nothing is no rise."""
        for reason in Reason:
            self._given_up.of(reason.value)
        for scope in (Scope.ORIGIN, Scope.TENANT):
            for state in State:
                self._transitions.of(scope.value, state.value)

    def call_ended(
        self,
        connector: str,
        error_class: str,
        disposition: str,
        ended_by: str,
        *,
        duration_s: float,
        first_byte_s: float | None,
        attempts: int,
    ) -> None:
        """Count a call that has come to its end.

        Args:
            connector: as the caller named it.
            error_class: the name of its class on the wire.
            disposition: likewise.
            ended_by: `upstream`, `policy`, `deadline`, `caller` or `runtime`.
            duration_s: from its acceptance.
            first_byte_s: from sending its last request; None where no response began.
            attempts: that were made for it; 0 is right for one that was refused.
        """
        cells = self._call_cells.get((connector, error_class, disposition, ended_by))
        if cells is None:
            cells = self._bind(connector, error_class, disposition, ended_by)
        cells.ended.value += 1
        cells.duration.observe(duration_s)
        if first_byte_s is not None:
            cells.first_byte.observe(first_byte_s)
        cells.attempts.value += attempts

    def _bind(self, connector: str, *rest: str) -> _CallCells:
        error_class, disposition, ended_by = rest
        shown = self._connectors.get(connector, OTHER)
        cells = _CallCells(
            self._calls.of(shown, error_class, disposition, ended_by),
            self._durations.of(shown),
            self._first_bytes.of(shown),
            self._attempts.of(shown),
        )
        # Unknown names are not remembered, nor anything beyond the cap: callers choose them.
        if shown == connector and len(self._call_cells) < SERIES_CAP:
            self._call_cells[connector, error_class, disposition, ended_by] = cells
        return cells

    def retried(self, reason: str) -> None:
        """Count a retry that was decided on; `reason` says what called for it."""
        self._retries.of(reason).value += 1

    def gave_up(self, reason: str) -> None:
        """Count a result without a further attempt; `reason` is a `policy.retry.Reason`'s value."""
        self._given_up.of(reason).value += 1

    def refused(self, policy: str, scope: str) -> None:
        """Count a refusal of our own, as `policy.verdicts.Refused` tells it."""
        self._refusals.of(policy, scope).value += 1

    def waited(self, policy: str, seconds: float) -> None:
        """Count a wait that is over, also one that was cut short."""
        self._waits.of(policy).observe(seconds)

    def breaker_changed(self, scope: str, after: str) -> None:
        """Count a transition to the state `after`."""
        self._transitions.of(scope, after).value += 1

    def hedged(self, outcome: str) -> None:
        """Count a second request; `outcome` says what became of the race."""
        self._hedges.of(outcome).value += 1

    def render(self, snapshot: Snapshot) -> bytes:
        """All of it as text (`CONTENT_TYPE`).

        Takes milliseconds, tens of them the first time: from the event loop use a `Scraper`.
        """
        # The library behind it takes 7 MB and 25 ms, and most runtimes are never asked. It brings
        # an HTTP server along, whose parts these are.
        with late_modules(("calendar", "gzip", "hashlib", "html", "mimetypes")):
            from vastar_runtime.metrics.exposition import text_of  # noqa: PLC0415 - as said above

        counts = (
            *(self._calls, self._attempts, self._retries, self._given_up),
            *(self._refusals, self._transitions, self._hedges),
        )
        distributions = (self._durations, self._first_bytes, self._waits)
        return text_of(counts, distributions, snapshot, SERIES_CAP)


def _counts(name: str, text: str, *labels: str) -> Family[Count]:
    return Family(Count, name, text, labels, SERIES_CAP)
