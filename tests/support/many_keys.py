"""Calls for many keys through all layers, over a transport that answers at once.

`python -m tests.support.many_keys each|one COUNT` prints by how many bytes the resident memory of a
process has grown when COUNT calls have ended: each of a tenant, a workspace and an origin of its
own, or all of one tenant to an origin each. Every limit of every level is on, and every answer
tells of the upstream's own.
"""

import gc
import sys
from pathlib import Path

import trio
import trio.testing

from tests.support.layers import Book, make_call, make_request
from vastar_runtime.metrics import Meters
from vastar_runtime.pipeline import Machines, Surroundings, Upstreams, compose
from vastar_runtime.pipeline.policies import CallPolicies, LimitSettings
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings

__all__ = ["ManyKeys", "resident_bytes"]

WARM_UP = 1000
LIMITS = LimitSettings(RateLimitSettings(10**6), TokenLimitSettings.per_minute(10**9))
_PAGE_BYTES = 4096


def resident_bytes() -> int:
    """What this process takes of the memory (Linux only)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


class _Answer:
    status = 200
    headers = (
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"50"),
        (b"x-ratelimit-reset-requests", b"1s"),
    )


class _AnswersAtOnce:
    """As much of a transport as the layers use, without connections."""

    async def acquire(self, scope, origin, progress):  # type: ignore[no-untyped-def]
        return self

    async def exchange(self, place, request, progress):  # type: ignore[no-untyped-def]
        progress.request_begun = True
        return _Answer()

    def release(self, place) -> None:  # type: ignore[no-untyped-def]
        pass


class ManyKeys:
    """The layers, and a call for each key."""

    def __init__(self, *, one_tenant: bool) -> None:
        policies = CallPolicies(
            limits=LIMITS, workspace_limits=LIMITS, tenant_limits=LIMITS, origin_limits=LIMITS
        )
        self.machines = Machines(Book(policies))
        self._one_tenant = one_tenant
        self._layers: Upstreams = compose(
            Surroundings(
                self.machines,
                _AnswersAtOnce(),  # type: ignore[arg-type]
                Meters(("http",)),
                random_ratio=lambda: 0.5,
                wall_clock_s=lambda: 0.0,
            )
        )

    async def call(self, number: int) -> None:
        """The call for one key, whole."""
        tenant, workspace = f"tenant-{number}", f"workspace-{number}"
        call = make_call("acme", "main") if self._one_tenant else make_call(tenant, workspace)
        request = make_request(
            f"host-{number}.example.com", method="POST", body=b'{"max_tokens": 5}'
        )
        with self._layers.lease(call) as lease:
            await lease.request(request)


async def _measure(which: str, count: int, clock: trio.testing.MockClock) -> None:
    keys = ManyKeys(one_tenant=which == "one")
    for number in range(WARM_UP):
        await keys.call(-number)
    before = resident_bytes()
    for number in range(count):
        await keys.call(number)
        clock.jump(0.001)  # a thousand new keys a second, of which none idles long enough to go
    sys.stdout.write(f"{resident_bytes() - before}\n")


if __name__ == "__main__":
    _clock = trio.testing.MockClock()
    trio.run(_measure, sys.argv[1], int(sys.argv[2]), _clock, clock=_clock)
