"""Bugs to plant in the runtime, by what is wrong with them.

A simulation that never finds anything proves nothing. So each invariant has at least one bug here
that it is there to find, and a test holds the two lists against each other.
"""

from tests.support.planted_calls import CALL_BUGS
from tests.support.planted_policies import POLICY_BUGS

__all__ = ["BUGS"]

BUGS = {**POLICY_BUGS, **CALL_BUGS}
