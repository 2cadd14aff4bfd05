"""What one request and its answer cost in bytes, however they end."""

import pytest
import trio

from tests.support.layers import make_call, make_request
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.pipeline.volume import STEP_BYTES, VolumeHold, request_bytes
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings
from vastar_runtime.transport.bodies import StreamedBody

LIMIT = 100 * STEP_BYTES
SETTINGS = RateLimitSettings(LIMIT, period_s=3600.0, policy="byte_limit")


def source(length_bytes: int | None = None) -> StreamedBody:
    async def receive() -> bytes:
        return b"x" * 100

    return StreamedBody(receive, length_bytes)


class Held:
    """A hold over limits of their own."""

    def __init__(self, body: object = None, count: int = 1) -> None:
        self.call = make_call()
        request = make_request(body=body)
        self.pacers = [Pacer(RateLimiter(SETTINGS)) for _ in range(count)]
        permits: list[tuple[Pacer[RateLimiter], Allowed]] = []
        for pacer in self.pacers:
            permit = pacer.limiter.decide(0.0, request_bytes(request))
            assert isinstance(permit, Allowed)
            permits.append((pacer, permit))
        self.hold = VolumeHold(self.call, request, permits)

    def came(self, size_bytes: int) -> None:
        self.call.received_bytes += size_bytes
        self.hold.passed()

    @property
    def spent(self) -> list[int]:
        now_s = trio.current_time()
        return [round(LIMIT - pacer.limiter.available(now_s)) for pacer in self.pacers]


@pytest.mark.parametrize(
    ("body", "cost"),
    [(None, 1), (b"", 1), (b"abc", 3), ([b"ab", b"c"], 3), ([], 1), (source(), 1), (source(7), 7)],
)
async def test_a_request_costs_its_body_and_never_nothing(body, cost, autojump_clock):
    assert request_bytes(make_request(body=body)) == cost
    held = Held(body)
    assert held.spent == [cost]


async def test_what_came_is_charged_to_every_limit_at_the_end(autojump_clock):
    held = Held(b"abc", count=3)
    held.came(1000)
    assert held.spent == [3] * 3
    held.hold.settle(0.0)
    held.hold.settle(0.0)
    held.hold.refund(0.0)
    assert held.spent == [1003] * 3
    assert [pacer.limiter.held for pacer in held.pacers] == [0] * 3


async def test_a_long_answer_is_charged_while_it_passes(autojump_clock):
    held = Held(b"abc")
    for _ in range(3):
        held.came(STEP_BYTES - 1)
    assert held.spent == [3 + 2 * (STEP_BYTES - 1)]
    held.came(2 * STEP_BYTES)
    whole = 3 + 5 * STEP_BYTES - 3
    assert held.spent == [whole]
    held.came(10)
    held.hold.settle(0.0)
    assert held.spent == [whole + 10]


async def test_what_is_received_later_is_for_others(autojump_clock):
    held = Held(b"abc")
    held.hold.settle(0.0)
    held.came(9 * STEP_BYTES)
    assert held.spent == [3]


async def test_what_was_received_before_is_not_charged_again(autojump_clock):
    held = Held(b"abc")
    held.call.received_bytes = 500
    again = VolumeHold(held.call, make_request(body=b"abc"), held.hold._take())
    held.call.received_bytes = 700
    again.settle(0.0)
    assert held.spent == [203]


async def test_what_was_never_sent_comes_back_whole(autojump_clock):
    held = Held(b"x" * 1000, count=2)
    held.hold.refund(0.0)
    assert held.spent == [0, 0]


@pytest.mark.parametrize("length_bytes", [None, 100, 500])
async def test_a_body_that_follows_costs_what_was_read_of_it(length_bytes, autojump_clock):
    body = source(length_bytes)
    held = Held(body)
    await body.read_some()
    await body.read_some()
    held.hold.settle(0.0)
    assert held.spent == [200]


async def test_a_body_that_began_again_has_not_cost_less(autojump_clock):
    body = source()
    await body.read_some()
    held = Held(body)
    assert body.rewind()
    held.hold.settle(0.0)
    assert held.spent == [100]
