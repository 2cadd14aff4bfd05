"""TLS: whom the transport trusts, who it is, and what it says when the handshake fails."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runtime.transport.conftest import SCOPE, House, make_request
from tests.support.http_bodies import ScriptedBody
from tests.support.http_tls import Authority
from tests.support.upstream import serve_upstream
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    Body,
    BodySource,
    FaultKind,
    HttpTransport,
    Phase,
    Progress,
    RouteSettings,
    TlsSettings,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.channel import Channel, ChannelStream
from vastar_runtime.transport.fake import BlackHole, Script, Send, Serve, Wait
from vastar_runtime.transport.memory import MemoryChannel
from vastar_runtime.transport.tls import TlsContexts


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


def settings_for(authority: Authority, **tls: Any) -> TransportSettings:
    return TransportSettings(tls=TlsSettings(ca_file=authority.ca_file, **tls))


def put(house: House, context: ssl.SSLContext, name: str = "secure.test") -> None:
    async def handle(channel: Channel) -> None:
        await house.upstream.handle_tls(channel, context)

    house.network.add_host(name, Serve(handle))


async def fetch(house: House, target: str = "/small", **more: Any) -> tuple[int, bytes]:
    more = {"host": "secure.test", "port": 443, **more}
    return await house.fetch(target, scheme="https", **more)


async def failure(house: House, **more: Any) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await fetch(house, **more)
    house.check_nothing_is_left()
    assert house.counts == (0, 0, 0)
    return caught.value


async def test_a_good_certificate(house: House, authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.server("secure.test")
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    put(house, context)
    house.make(settings_for(authority))
    for _ in range(2):
        assert (await fetch(house, "/big?n=200000"))[1] == b"y" * 200_000
    assert house.progress.reused
    assert asked == ["secure.test"]
    assert house.upstream.seen("tls")[0]["alpn"] == "http/1.1"


@pytest.mark.parametrize("end", ["waits", "closes"])
@pytest.mark.parametrize(
    "body",
    [bytes(300_000), ScriptedBody([bytes(65536)] * 9), ScriptedBody([b"a", 50.0])],
    ids=["whole", "in pieces", "source waits"],
)
async def test_an_early_refusal_is_read_to_its_end(
    house: House, authority: Authority, body: Body | BodySource, end: str
) -> None:
    """Its body comes in a record of its own, when the sending has been given up."""
    context = authority.server("secure.test")

    async def refuse(channel: MemoryChannel) -> None:
        stream = trio.SSLStream(ChannelStream(channel), context, server_side=True)
        await stream.do_handshake()
        await trio.sleep(1)
        for piece in (b"HTTP/1.1 413 X\r\nContent-Length: 6\r\n\r\n", b"no", b"way", b"!"):
            await stream.send_all(piece)
            await trio.sleep(1)
        if end == "waits":
            await trio.sleep_forever()

    house.network.add_host("secure.test", Serve(refuse))
    house.make(settings_for(authority))
    assert await fetch(house, method=b"POST", body=body) == (413, b"noway!")
    assert not house.progress.request_sent
    assert house.counts == (0, 0, 0)


@pytest.mark.parametrize(
    ("names", "expired", "trusted", "words"),
    [
        (["secure.test"], False, False, "certificate verify failed: unable to get local issuer"),
        (["other.test"], False, True, "certificate verify failed: Hostname mismatch"),
        (["secure.test"], True, True, "certificate verify failed: certificate has expired"),
    ],
)
async def test_a_bad_certificate_is_named(
    house: House,
    authority: Authority,
    names: list[str],
    *,
    expired: bool,
    trusted: bool,
    words: str,
) -> None:
    put(house, authority.server(*names, expired=expired))
    house.make(settings_for(authority) if trusted else TransportSettings())
    error = await failure(house)
    assert error.phase is Phase.TLS
    assert error.cause.startswith(words)
    assert error.kind is FaultKind.UNTRUSTED
    assert error.disposition is Disposition.NOT_SENT
    assert str(error).startswith("TLS handshake failed for secure.test:443: certificate")


async def test_an_absolute_name_is_checked_without_its_dot(
    house: House, authority: Authority
) -> None:
    put(house, authority.server("secure.test"), name="secure.test.")
    house.make(settings_for(authority))
    assert (await fetch(house, host="secure.test."))[0] == 200


async def test_an_address_is_checked_as_one(authority: Authority) -> None:
    transport = HttpTransport(settings_for(authority), environ={})
    async with serve_upstream(authority.server("127.0.0.1")) as upstream:
        request = make_request(scheme="https", host="127.0.0.1", port=upstream.port)
        async with await transport.request(SCOPE, request, Progress()) as response:
            assert len(await response.read_all()) == 34
        await transport.aclose()


@pytest.mark.parametrize("password", [None, b"open sesame"])
async def test_a_client_certificate(
    house: House, authority: Authority, password: bytes | None
) -> None:
    certificate, key = authority.client_files(password)
    password_file = authority.folder / "password"
    password_file.write_bytes((password or b"") + b"\r\n")
    put(house, authority.server("secure.test", wants_client=True))
    house.make(
        settings_for(
            authority,
            certificate_file=certificate,
            key_file=key,
            key_password_file=str(password_file) if password else None,
        )
    )
    assert (await fetch(house))[0] == 200
    names = house.upstream.seen("tls")[0]["cert"]["subjectAltName"]
    assert ("email", "client@example.org") in names


async def test_a_missing_client_certificate_is_the_upstreams_refusal(
    house: House, authority: Authority
) -> None:
    put(house, authority.server("secure.test", wants_client=True))
    house.make(settings_for(authority))
    error = await failure(house)
    # TLS 1.3: the refusal comes behind our handshake, and may be overtaken by the end it causes.
    told = "certificate required" in error.cause
    assert told or error.cause in {"connection reset", "closed before the response"}
    assert error.kind is (FaultKind.UNTRUSTED if told else FaultKind.RESET)


async def test_an_encrypted_key_without_its_password_never_asks_a_person(
    house: House, authority: Authority
) -> None:
    certificate, key = authority.client_files(b"secret")
    put(house, authority.server("secure.test"))
    house.make(settings_for(authority, certificate_file=certificate, key_file=key))
    error = await failure(house)
    assert (error.phase, error.kind) == (Phase.TLS, FaultKind.LOCAL)


@pytest.mark.parametrize(
    ("newest", "oldest_of_ours", "words"),
    [
        (ssl.TLSVersion.TLSv1_2, "1.3", "TLS: tlsv1 alert protocol version"),
        (ssl.TLSVersion.TLSv1_2, "1.2", "TLS: sslv3 alert handshake failure"),
        (ssl.TLSVersion.TLSv1_3, "1.2", "TLS: tlsv13 alert certificate required"),
    ],
)
async def test_an_upstream_that_does_not_accept_what_we_are(
    house: House, authority: Authority, *, newest: ssl.TLSVersion, oldest_of_ours: str, words: str
) -> None:
    """Another tenant's settings may do: the fault is not the host's."""
    context = authority.server("secure.test", wants_client=True)
    context.maximum_version = newest
    house.network.add_host("secure.test", Serve(lambda end: refuse_by_alert(end, context)))
    house.make(settings_for(authority, min_version=oldest_of_ours))
    error = await failure(house)
    assert (error.cause, error.kind) == (words, FaultKind.UNTRUSTED)


async def refuse_by_alert(channel: Channel, context: ssl.SSLContext) -> None:
    """Serve TLS until it fails, and send the alert, which Trio's own stream drops."""
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(received, to_send, server_side=True)
    failed = False
    while not failed:
        received.write(await channel.receive_some())
        try:
            server.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            failed = True
        if to_send.pending:
            await channel.send_buffers([to_send.read()])
    await trio.sleep(1)  # the alert is read before the end


async def test_no_tls_older_than_1_2(authority: Authority) -> None:
    contexts = TlsContexts()
    settings = TlsSettings(ca_file=authority.ca_file)
    assert contexts.get(settings).minimum_version is ssl.TLSVersion.TLSv1_2
    newer = TlsSettings(ca_file=authority.ca_file, min_version="1.3")
    assert contexts.get(newer).minimum_version is ssl.TLSVersion.TLSv1_3
    assert contexts.get(settings).verify_mode is ssl.CERT_REQUIRED
    assert contexts.get(settings).check_hostname


async def test_one_context_for_each_trust(authority: Authority) -> None:
    contexts = TlsContexts()
    one = contexts.get(TlsSettings(ca_file=authority.ca_file))
    assert contexts.get(TlsSettings(ca_file=authority.ca_file)) is one
    assert len(one.get_ca_certs()) == 1
    assert contexts.get(TlsSettings(ca_file=authority.ca_file, system_trust=True)) is not one


async def test_ssl_cert_file_is_honoured(
    house: House, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca_file)
    put(house, authority.server("secure.test"))
    house.make()
    assert (await fetch(house))[0] == 200


async def test_a_route_of_its_own_has_connections_of_its_own(
    house: House, authority: Authority
) -> None:
    put(house, authority.server("secure.test"))
    route = RouteSettings(tls=TlsSettings(ca_file=authority.ca_file))
    request = make_request(scheme="https", host="secure.test", port=443)
    for reused in (False, True):
        progress = Progress()
        async with await house.transport.request(SCOPE, request, progress, route=route) as answer:
            assert answer.status == 200
        assert progress.reused is reused
    with pytest.raises(TransportError, match="certificate verify failed"):
        await fetch(house)


async def test_a_missing_file_is_named_by_its_failure(house: House, tmp_path: Path) -> None:
    house.make(TransportSettings(tls=TlsSettings(ca_file=str(tmp_path / "none.pem"))))
    house.network.add_host("secure.test", Script([Wait()]))
    error = await failure(house)
    assert (error.cause, error.kind) == ("no such file or directory", FaultKind.LOCAL)


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        (Script([Send(b"HTTP/1.1 400 Bad\r\n\r\n"), Wait()]), "TLS: "),
        (Script([Wait(1)]), "connection closed during TLS"),
        (Script([Wait()]), "timed out after 5 s"),
    ],
)
async def test_what_is_no_tls_server(house: House, behaviour: Script, cause: str) -> None:
    house.network.add_host("secure.test", behaviour)
    error = await failure(house)
    assert error.phase is Phase.TLS
    assert error.cause.startswith(cause)
    assert error.timed_out is cause.startswith("timed out")
    assert error.kind is (FaultKind.CONNECT if error.timed_out else FaultKind.TLS)


async def test_cancelled_in_the_handshake(house: House) -> None:
    house.network.add_host("secure.test", Script([Wait()]))
    with trio.move_on_after(1):
        await fetch(house)
    assert house.progress.phase is Phase.TLS
    house.check_nothing_is_left()


async def test_the_time_limit_covers_all_steps_together(house: House) -> None:
    house.network.add_host("secure.test", BlackHole(), Script([Wait()]), lookup_s=3)
    began_s = trio.current_time()
    error = await failure(house)
    assert (error.phase, error.timed_out) == (Phase.TLS, True)
    assert trio.current_time() - began_s == pytest.approx(5)


async def test_an_idle_tls_connection_that_was_closed_is_not_used(
    house: House, authority: Authority
) -> None:
    put(house, authority.server("secure.test"))
    house.make(settings_for(authority))
    await fetch(house, "/gone_keepalive", method=b"POST")
    await trio.sleep(1)
    assert (await fetch(house, method=b"POST"))[0] == 200
    assert not house.progress.reused


async def test_a_body_that_ends_with_the_connection_ends_with_tls_too(
    house: House, authority: Authority
) -> None:
    put(house, authority.server("secure.test"))
    house.make(settings_for(authority))
    assert (await fetch(house, "/nolen"))[1] == b"until close"
    with pytest.raises(TransportError, match="9 of 100"):
        await fetch(house, "/short")
