"""Timeouts and cancellation of the async client: at every step, and nothing is left."""

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left, connected, echo, link_of
from tests.support.client_streams import recording_dial
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    CallTimeout,
)
from vastar_client.testing import HOLD, After, FakeRuntime, respond
from vastar_client.wire import (
    Disposition,
)


async def test_a_stuck_runtime_cannot_hang_a_call(autojump_clock):
    """The client's own timer speaks one second after the deadline, and cancels the call."""
    fake = FakeRuntime(lambda _: HOLD, keeps_deadlines=False)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        with pytest.raises(CallTimeout, match="it may be stuck") as caught:
            await client.get(URL, timeout_s=5)
        assert trio.current_time() - begin == pytest.approx(6.0)
        assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
        assert caught.value.is_retryable()
        await trio.testing.wait_all_tasks_blocked()
        assert fake.cancelled == [caught.value.request_id]
        assert_nothing_is_left(client)


async def test_the_runtime_may_answer_a_timeout_late_within_the_grace(autojump_clock):
    late = CallTimeout("deadline passed in phase connect")
    fake = FakeRuntime([After(5.5, late)], keeps_deadlines=False)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(CallTimeout, match="in phase connect"):
            await client.get(URL, timeout_s=5)


@pytest.mark.parametrize("n_steps", range(1, 12))
async def test_a_cancelled_call_leaves_nothing_at_whatever_step(autojump_clock, n_steps):
    """The calling task is cancelled before its n-th step; the connection goes on unharmed."""
    fake = FakeRuntime(lambda request: After(1.0, echo(request)))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        scope = trio.CancelScope()

        class Cutter(trio.abc.Instrument):
            task = None
            steps = 0

            def before_task_step(self, task):
                if task is self.task:
                    self.steps += 1
                    if self.steps == n_steps:
                        scope.cancel()

        cutter = Cutter()

        async def call():
            cutter.task = trio.lowlevel.current_task()
            with scope:
                await client.get(URL)

        trio.lowlevel.add_instrument(cutter)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
        finally:
            trio.lowlevel.remove_instrument(cutter)
        assert link_of(client)._session is None or link_of(client)._session._pending == {}
        assert (await client.get(URL)).status_code == 200
        await trio.sleep(2)
        assert_nothing_is_left(client)


async def test_a_call_cancelled_before_its_frame_left_is_never_sent(autojump_clock):
    fake = FakeRuntime(echo)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        await connected(client)
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.get(URL)
        with trio.move_on_after(0):
            await client.health()
        assert (await client.get(URL + "/second")).status_code == 200
        assert [r.url for r in fake.requests] == [URL + "/second"]
        assert fake.cancelled == []
        assert_nothing_is_left(client)


async def test_the_late_answer_of_a_cancelled_call_is_dropped(autojump_clock):
    fake = FakeRuntime([After(2.0, respond(body="late")), After(4.0, respond(body="mine"))])
    config = RuntimeConfig(payload_format="json")  # which knows no Cancel
    async with AsyncRuntimeClient(config, dial=fake.dial) as client:
        with trio.move_on_after(1):
            await client.get(URL)
        assert link_of(client)._slots.value == 255, "the runtime is still busy with it"
        assert (await client.get(URL)).text == "mine"
        assert_nothing_is_left(client)


async def test_a_cancelled_caller_never_cuts_a_frame(autojump_clock):
    fake = FakeRuntime(echo)
    dial, streams = recording_dial(fake)

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        streams[0].gate = trio.Event()
        with trio.move_on_after(1):
            await client.put(URL, data=bytes(1_000_000))
        streams[0].gate.set()
        assert (await client.get(URL)).status_code == 200
    assert len(streams) == 1
    assert len(fake.requests[0].body) == 1_000_000
    assert fake.cancelled == [fake.messages[0].request_id]


async def test_json_mode_sends_no_frame_that_the_published_runtime_does_not_know(autojump_clock):
    fake = FakeRuntime([HOLD, respond()])
    config = RuntimeConfig(payload_format="json")
    async with AsyncRuntimeClient(config, dial=fake.dial) as client:
        with trio.move_on_after(1):
            await client.get(URL)
        await client.get(URL)
        assert fake.cancelled == []
        fake.held[0].reply(respond())
        await trio.testing.wait_all_tasks_blocked()
        assert_nothing_is_left(client)


async def test_the_257th_call_waits_for_its_turn(autojump_clock):
    fake = FakeRuntime(lambda _: HOLD)
    async with AsyncRuntimeClient(dial=fake.dial) as client, trio.open_nursery() as nursery:
        for _ in range(256):
            nursery.start_soon(client.get, URL)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallTimeout, match="256 calls were in flight for 2 s") as caught:
            await client.get(URL, timeout_s=2)
        assert caught.value.disposition is Disposition.NOT_SENT
        assert (await client.health()).healthy, "a health check needs no turn"
        nursery.start_soon(client.get, URL)
        await trio.testing.wait_all_tasks_blocked()
        assert len(fake.held) == 256
        fake.held.pop().reply(respond())
        await trio.testing.wait_all_tasks_blocked()
        assert len(fake.messages) == 257
        for held in fake.held:
            held.reply(respond())
        await trio.testing.wait_all_tasks_blocked()
        assert_nothing_is_left(client)


async def test_a_cancelled_health_check_does_not_shift_the_answers_of_later_ones(autojump_clock):
    """Health answers carry no id: their order is all that tells them apart."""
    fake = FakeRuntime(echo)
    dial, streams = recording_dial(fake)

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        streams[0].gate = trio.Event()
        with trio.move_on_after(1):
            await client.health()  # its frame is being written
        with trio.move_on_after(1):
            await client.health()  # its frame never leaves
        streams[0].gate.set()
        assert (await client.health()).healthy
        await trio.testing.wait_all_tasks_blocked()
        assert len([item for item in streams[0].sent if len(item) == 5]) == 2
        assert_nothing_is_left(client)
