"""What only channels in memory can do; the rest is tested with all channels."""

import pytest
import trio

from vastar_runtime.transport.memory import memory_channel_pair


async def test_a_reset_in_memory_loses_what_was_on_its_way() -> None:
    one, other = memory_channel_pair()
    await one.send_buffers([b"lost"])
    one.reset()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await other.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(trio.BrokenResourceError):
        await other.send_buffers([b"x"])
    await other.wait_hangup()


async def test_a_memory_channel_can_cut_everything_into_bytes() -> None:
    one, other = memory_channel_pair()
    other.receive_limit_bytes = 1
    await one.send_buffers([b"abc"])
    assert [await other.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]
