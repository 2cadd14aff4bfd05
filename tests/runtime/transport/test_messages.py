"""How an origin is written."""

import pytest

from vastar_runtime.transport import Origin


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
