"""Policies: what to decide about a call, as plain state and arithmetic.

No I/O, no event loop, no clock: `now` and random numbers come in as arguments, verdicts go out,
and the drivers in `vastar_runtime.pipeline` do the waiting. Which of them a call meets, and in
which order, `pipeline.layers` says.
"""

from vastar_runtime.policy.deadline import Deadline, Limit

__all__ = ["Deadline", "Limit"]
