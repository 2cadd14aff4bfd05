"""How far a policy's verdict reaches: enforced, only counted, or not asked for.

A refusal passes through the `Gate` of its policy, so that "observe never refuses" is one line that
every policy shares, and so that the counts of the two modes cannot drift apart. What a policy
would *do* (retry, hedge, wait) asks `Gate.acts` likewise. In `OFF` the driver does not consult the
policy at all.
"""

from enum import Enum
from typing import TypeVar

import attrs

__all__ = ["Gate", "Mode"]

Verdict = TypeVar("Verdict")


class Mode(Enum):
    """What a policy's verdicts are for; the value is its name in a configuration file."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    """Decides and counts as if enforced, and changes nothing about the call."""
    OFF = "off"


@attrs.define
class Gate:
    """What became of one policy's verdicts, in counts that only grow.

    Attributes:
        mode: may change under way; the counts go on.
        passed: calls, or attempts, that the policy had nothing against.
        applied: verdicts that took effect.
        observed: verdicts that would have, had the mode been `ENFORCE`.
    """

    mode: Mode = Mode.ENFORCE
    passed: int = 0
    applied: int = 0
    observed: int = 0

    @property
    def is_consulted(self) -> bool:
        """Whether the policy is to be asked at all."""
        return self.mode is not Mode.OFF

    def apply(self, verdict: Verdict | None) -> Verdict | None:
        """`verdict` where it is to take effect; `None`, "go ahead", stays `None`."""
        if verdict is None:
            self.passed += 1
            return None
        if self.mode is Mode.ENFORCE:
            self.applied += 1
            return verdict
        if self.mode is Mode.OBSERVE:
            self.observed += 1
        return None

    def acts(self) -> bool:
        """Whether something that the policy wants done is to be done."""
        return self.apply(True) is not None
