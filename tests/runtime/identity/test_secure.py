"""The context of callers' TLS: what it asks for, and what it refuses to be made of."""

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.http_tls import Authority
from vastar_runtime.config import TcpConfig
from vastar_runtime.identity.secure import TlsError, caller_context, greet
from vastar_runtime.transport import StreamChannel


@pytest.fixture
def tcp(tmp_path: Path) -> TcpConfig:
    authority = Authority.make(tmp_path)
    path = tmp_path / "server.pem"
    authority.ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return TcpConfig(cert_file=str(path), client_ca_file=authority.ca_file)


def test_what_is_asked_of_callers(tcp: TcpConfig) -> None:
    assert caller_context(TcpConfig()) is None
    alone = caller_context(TcpConfig(cert_file=tcp.cert_file))
    optional = caller_context(tcp)
    required = caller_context(
        TcpConfig(
            cert_file=tcp.cert_file, client_ca_file=tcp.client_ca_file, require_client_cert=True
        )
    )
    assert alone is not None
    assert optional is not None
    assert required is not None
    assert alone.verify_mode is ssl.CERT_NONE
    assert optional.verify_mode is ssl.CERT_OPTIONAL
    assert required.verify_mode is ssl.CERT_REQUIRED
    assert required.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_file_that_is_no_certificate_is_an_error(tcp: TcpConfig, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(OSError, match=r".+"):
        caller_context(TcpConfig(cert_file=str(bad)))


async def test_silence_in_the_handshake_has_an_end(
    tcp: TcpConfig, autojump_clock: trio.abc.Clock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    context = caller_context(tcp)
    assert context is not None
    with pytest.raises(TlsError, match="no TLS handshake within 30 s"):
        await greet(StreamChannel(ours), context, 30)
    await theirs.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
    with pytest.raises(TlsError):
        await greet(StreamChannel(ours), context, 30)
