"""The fake network by itself: lookups, addresses, and scripts that repeat and cut."""

import socket

import pytest
import trio
import trio.testing

from vastar_runtime.transport.fake import FakeNetwork, Request, Script, Send


async def test_names_and_addresses(nursery: trio.Nursery) -> None:
    network = FakeNetwork(nursery)
    ips = network.add_host("a.test", Script([]), Script([]), ipv6=[1])
    found = await network.resolve("a.test", 80, tenant="t")
    assert [address.ip for address in found] == ips
    assert [address.family for address in found] == [socket.AF_INET, socket.AF_INET6]
    with pytest.raises(socket.gaierror):
        await network.resolve("b.test", 80, tenant="t")
    assert network.lookups == ["a.test", "b.test"]


async def test_a_script_repeats_and_cuts_what_it_sends(nursery: trio.Nursery) -> None:
    network = FakeNetwork(nursery)
    network.add_host("a.test", Script([Request(), Send(b"abc", piece_bytes=2)], repeat=True))
    channel = await network.connect((await network.resolve("a.test", 80, tenant="t"))[0])
    for _ in range(2):
        await channel.send_buffers([b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi"])
        await trio.testing.wait_all_tasks_blocked()
        assert await channel.receive_some() == b"abc"
    assert len(network.open_channels) == 1
    channel.abort()
    assert network.open_channels == []


async def test_a_request_with_a_body_in_chunks_is_read_to_its_end(nursery: trio.Nursery) -> None:
    network = FakeNetwork(nursery)
    network.add_host("a.test", Script([Request(), Send(b"ok")], repeat=True))
    channel = await network.connect((await network.resolve("a.test", 80, tenant="t"))[0])
    for cut in (1, 1000):
        wire = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\r\n0\r\n0\r\n\r\n"
        for start in range(0, len(wire), cut):
            assert not channel.is_readable()
            await channel.send_buffers([wire[start : start + cut]])
            await trio.testing.wait_all_tasks_blocked()
        assert await channel.receive_some() == b"ok"
    channel.abort()
