"""Bad settings are refused with the name of the key and what would be right."""

import math

import pytest

from vastar_runtime.transport import HttpTransport, TlsSettings, TransportSettings


async def test_the_settings_say_what_is_wrong_with_them() -> None:
    for bad in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"connect_timeout_s is .+ it must be a number"):
            TransportSettings(connect_timeout_s=bad)
    HttpTransport(environ={})


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="need a certificate_file"):
        TlsSettings(key_file="key.pem")
