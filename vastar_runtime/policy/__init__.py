"""Policies: what to decide about a call, as plain state and arithmetic.

No I/O, no event loop, no clock: `now` and random numbers come in as arguments, verdicts go out,
and the drivers in `vastar_runtime.pipeline` do the waiting.

`deadline` is driven today. The other machines are whole and proved, but no driver asks them yet:
until `pipeline.compose` names a layer, a call does not meet it.
"""

from vastar_runtime.policy.deadline import Deadline, Limit

__all__ = ["Deadline", "Limit"]
