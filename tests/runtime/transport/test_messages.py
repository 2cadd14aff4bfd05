"""How an origin is written, what headers say, and whether a body can be sent again."""

import pytest

from tests.support.http_bodies import ScriptedBody
from vastar_runtime.transport import Body, Origin
from vastar_runtime.transport.messages import BodySource, header_values, is_event_stream, rewind


@pytest.mark.parametrize(
    ("origin", "authority", "address"),
    [
        (Origin("http", "a.test", 80), "a.test", "a.test:80"),
        (Origin("https", "a.test", 443), "a.test", "a.test:443"),
        (Origin("http", "a.test", 443), "a.test:443", "a.test:443"),
        (Origin("http", "::1", 80), "[::1]", "[::1]:80"),
        (Origin("https", "::1", 8443), "[::1]:8443", "[::1]:8443"),
    ],
)
def test_the_default_port_is_left_out_of_the_authority_only(
    origin: Origin, authority: str, address: str
) -> None:
    assert (origin.authority, origin.address) == (authority, address)
    assert str(origin) == f"{origin.scheme}://{authority}"


def test_header_values_in_order() -> None:
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert header_values(headers, b"a") == [b"1", b"3"]
    assert header_values(headers, b"c") == []


@pytest.mark.parametrize(
    ("content_type", "is_one"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream ; charset=utf-8", True),
        (b"text/event-stream2", False),
        (b"application/json", False),
        (None, False),
    ],
)
def test_an_event_stream_is_told_by_its_media_type(
    content_type: bytes | None, is_one: bool
) -> None:
    headers = [] if content_type is None else [(b"content-type", content_type)]
    assert is_event_stream(headers) is is_one


@pytest.mark.parametrize("body", [None, b"", b"abc", [b"a", b"b"], memoryview(b"a")])
def test_a_body_that_is_here_can_be_sent_again(body: Body) -> None:
    assert rewind(body)


async def test_a_source_is_rewound_where_anything_was_read() -> None:
    body = ScriptedBody([b"abc", bytes(65536)])
    assert rewind(body)
    await body.read_some()
    assert body.consumed_bytes == 3
    assert rewind(body)
    assert body.consumed_bytes == 0
    assert await body.read_some() == b"abc"
    await body.read_some()
    assert not rewind(body)


async def test_a_source_says_what_it_leaves_undone() -> None:
    source = BodySource()
    with pytest.raises(NotImplementedError):
        await source.read_some()
    with pytest.raises(NotImplementedError):
        source.rewind()
