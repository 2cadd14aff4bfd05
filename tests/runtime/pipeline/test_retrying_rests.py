"""Retry beside the cooldown: a 429 is tried again, when the credential has rested.

The two roll their dice apart. A retry that came before the end of the rest would be refused by our
own cooldown, so the rest is a floor under its wait.
"""

import trio

from tests.support.layers import laid
from tests.support.planned import answer
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.modes import Mode


async def test_a_throttled_call_goes_on_when_its_credential_has_rested(autojump_clock):
    """The cooldown that its own 429 began must not refuse the retry."""
    for ratio in (0.1, 0.5, 0.9):
        async with laid() as house:
            house.ratio = ratio
            upstream = house.plan(answer(429), answer(429, b"", "Retry-After: 3"), answer(200))
            got = await house.ask(method="POST")
            assert (got.status, got.call.attempts, got.refused_by) == (200, 3, None)
            rested_s = upstream.times[1] - upstream.times[0]
            assert rested_s >= (1 + ratio) / 2
            assert 3 <= upstream.times[2] - upstream.times[1] <= 3 * 1.25**2


async def test_and_so_does_the_retry_of_another_fault_meanwhile(autojump_clock):
    async with laid() as house:
        upstream = house.plan(answer(503, after_s=1), answer(429, b"", "Retry-After: 8"), answer())
        ends = []
        house.start(ends)
        house.start(ends)
        await trio.sleep(20)
        assert [got.status for got in ends] == [200, 200]
        assert all(8 <= at_s <= 8 * 1.25**2 for at_s in upstream.times[2:])


async def test_a_rest_that_begins_in_a_backoff_lengthens_it(autojump_clock):
    for time_s, status, attempts in ((30, 200, 2), (10, 503, 1)):
        async with laid() as house:
            begun_s = trio.current_time()
            upstream = house.plan(
                answer(503, b"", "Retry-After: 2"), answer(429, b"", "Retry-After: 10"), answer()
            )
            ends = []
            house.start(ends, time_s=time_s)
            await trio.sleep(1)
            assert (await house.ask(time_s=5)).status == 429
            await trio.sleep(20)
            [got] = ends
            assert (got.status, got.call.attempts) == (status, attempts)
            if attempts == 2:
                assert upstream.times[2] - begun_s == 1 + 10 * 1.125
                assert got.call.backoff_us == 12_250_000
            else:
                assert got.refused_by == "cooldown:credential"
                assert got.at_s - begun_s == 2.25, "what does not fit is not waited for"


async def test_a_rest_that_does_not_fit_is_not_waited_for(autojump_clock):
    async with laid() as house:
        house.plan(answer(429))
        got = await house.ask(time_s=0.7)
        assert (got.status, got.at_s, got.counts) == (429, 0, (1, 0, 0))
        assert house.meters.of("gave_up") == [("past_deadline",)]


async def test_observed_cooldowns_hold_nobody_up(autojump_clock):
    async with laid(cooldown=CooldownSettings(mode=Mode.OBSERVE)) as house:
        upstream = house.plan(answer(429), answer(200))
        house.ratio = 0.1
        assert (await house.ask()).status == 200
        assert upstream.times == [0, 0.1]
