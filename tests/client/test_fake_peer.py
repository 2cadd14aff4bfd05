"""The fake runtime as a peer: the real protocol, in both payload formats."""

import pytest

from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.testing import FakeRuntime, respond

URL = "http://api.test/x"


@pytest.mark.parametrize("payload_format", ["native", "json"])
def test_answers_arrive_as_they_were_given(payload_format):
    pairs = [("Content-Type", "text/event-stream"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
    fake = FakeRuntime([respond(201, body="é", headers=pairs), respond(body=b"\xff\x00")])
    with RuntimeClient(RuntimeConfig(payload_format=payload_format), dial=fake.dial) as client:
        first, second = client.get(URL), client.get(URL)
    assert (first.status_code, first.text, first.is_sse) == (201, "é", True)
    assert first.headers["set-cookie"] == "a\nb"
    assert second.body == b"\xff\x00"


def test_the_http_version_is_written_as_the_runtime_writes_it():
    with RuntimeClient(dial=FakeRuntime([respond()]).dial) as client:
        assert client.get(URL).http_version == "1.1"


@pytest.mark.parametrize("garbage", [b"\0\0\0\x02\x63x", b"\0\0\0\x02\0x"])
async def test_a_broken_frame_is_answered_and_the_connection_lives(garbage):
    fake = FakeRuntime()
    stream = await fake.dial()
    for _ in range(2):
        await stream.send(garbage)
        assert (await stream.receive())[4] == 1, "an ExecuteResponse"
    await stream.send(b"\0\0\0\0")
    await stream.receive()
    assert stream._ended
    await stream.aclose()
