"""What a limit says when it says no.

One value for every limit, because a caller wants the same two answers from each: who refused, and
when to come back.
"""

from enum import Enum

import attrs

__all__ = ["Refused", "Scope"]


class Scope(Enum):
    """Whose share is used up; the value is how messages, metrics and configuration name it."""

    RUNTIME = "runtime"
    TENANT = "tenant"
    WORKSPACE = "workspace"
    ORIGIN = "origin"
    CREDENTIAL = "credential"
    """One workspace's calls to one origin."""


@attrs.frozen
class Refused:
    """A refusal. It has cost nothing.

    Attributes:
        policy: which policy refused, as messages and metrics name it.
        scope: whose share is used up.
        retry_after_s: when to come back, never negative; None where waiting does not help.
        reason: for people; holds no secrets.
    """

    policy: str
    scope: Scope
    retry_after_s: float | None
    reason: str
