"""`[HOST:]PORT` as a value and back, and what is loopback."""

import pytest

from vastar_runtime.config import TcpAddress, UnixAddress, parse_tcp_address
from vastar_runtime.config._addresses import is_loopback


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("5000", TcpAddress("127.0.0.1", 5000)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:65535", TcpAddress("::1", 65535)),
    ],
)
def test_tcp_addresses(text: str, address: TcpAddress) -> None:
    assert parse_tcp_address(text) == address
    assert parse_tcp_address(str(address).removeprefix("tcp:")) == address


@pytest.mark.parametrize("text", ["", ":", ":5000", "h:", "h:65536", "h:-1", "h:٣", "h:5 0"])
def test_what_is_no_tcp_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no TCP address; give PORT"):
        parse_tcp_address(text)


def test_a_unix_address_prints_its_path() -> None:
    assert str(UnixAddress("/x")) == "unix:/x"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.example.test", False),
        ("127.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
