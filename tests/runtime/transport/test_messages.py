"""How an origin is written."""

import pytest

from vastar_runtime.transport import Origin
from vastar_runtime.transport.messages import header_values, is_event_stream


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
