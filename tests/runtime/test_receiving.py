"""Real sockets: who the kernel says calls, TLS with and without a certificate of theirs, doors."""

import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.http_tls import Authority
from tests.support.upstream import serve_upstream
from vastar_client import RuntimeConfig as ClientConfig
from vastar_client import RuntimeUnavailable
from vastar_client._dialing import dial
from vastar_client.async_client import AsyncRuntimeClient
from vastar_runtime.assembly import Runtime
from vastar_runtime.calls import Caller
from vastar_runtime.config import RuntimeConfig, ServerConfig, TcpConfig, TenantConfig
from vastar_runtime.identity import visas
from vastar_runtime.listeners import peer_credentials
from vastar_runtime.receiving import receive

TOKEN = "planted-token-0123456789"


@asynccontextmanager
async def listening(config: RuntimeConfig) -> AsyncIterator[tuple[int, Runtime]]:
    """A runtime behind a TCP port."""
    async with trio.open_nursery() as nursery:
        runtime = Runtime(config)
        nursery.start_soon(runtime.run)
        listener = trio.socket.socket()
        await listener.bind(("127.0.0.1", 0))
        listener.listen(16)

        async def accept() -> None:
            while True:
                sock, _ = await listener.accept()
                nursery.start_soon(receive, runtime, socket.socket(fileno=sock.detach()))

        nursery.start_soon(accept)
        try:
            yield listener.getsockname()[1], runtime
        finally:
            nursery.cancel_scope.cancel()
    listener.close()


def tls_config(authority: Authority, folder: Path, **tcp: object) -> RuntimeConfig:
    leaf = authority.ca.issue_cert("localhost", "127.0.0.1")
    path = folder / "server.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
    tokens = folder / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o600)
    return RuntimeConfig(
        tcp=TcpConfig(cert_file=str(path), client_ca_file=authority.ca_file, **tcp),  # type: ignore[arg-type]
        tenants={
            "acme": TenantConfig(token_file=str(tokens)),
            "rival": TenantConfig(allow_subjects=("client@example.org", "build.rival.test")),
        },
    )


def client(port: int, authority: Authority, **options: object) -> AsyncRuntimeClient:
    config = ClientConfig(
        use_tcp=True, tcp_port=port, tls_ca_file=authority.ca_file, use_environment=False,
        payload_format="native", **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return AsyncRuntimeClient(config)


async def message_of(calls: AsyncRuntimeClient, url: str, tenant: str) -> str:
    """What became of a call: empty where it went well."""
    try:
        await calls.get(url, tenant_id=tenant)
    except Exception as error:  # noqa: BLE001 - whatever it says
        return str(error)
    return ""


async def test_a_token_over_tls_opens_its_tenant_and_no_other(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    async with (
        serve_upstream() as upstream,
        listening(tls_config(authority, tmp_path)) as (port, _),
        client(port, authority, token=TOKEN) as calls,
    ):
        url = f"http://127.0.0.1:{upstream.port}/small"
        # The guard of addresses comes after the question of who calls.
        assert "egress" in await message_of(calls, url, "acme")
        assert "not allowed" in await message_of(calls, url, "rival")
        assert "not allowed" in await message_of(calls, url, "default")


async def test_a_certificate_of_the_caller_opens_its_tenant(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    context = ssl.create_default_context(cafile=authority.ca_file)
    leaf = authority.ca.issue_cert("build.rival.test")
    leaf.configure_cert(context)
    async with (
        listening(tls_config(authority, tmp_path, require_client_cert=True)) as (port, _),
        client(port, authority, tls_context=context) as calls,
    ):
        url = "http://127.0.0.1:9/"
        assert "egress" in await message_of(calls, url, "rival")
        assert "not allowed" in await message_of(calls, url, "acme")


async def test_a_wrong_token_is_told_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[Caller] = []
    monkeypatch.setattr(visas, "audit", lambda _, caller, **__: callers.append(caller))
    authority = Authority.make(tmp_path)
    async with listening(tls_config(authority, tmp_path)) as (port, _):
        wrong = client(port, authority, token="planted-wrong-0123456789")
        with pytest.raises(RuntimeUnavailable, match="does not take the token") as caught:
            await wrong.__aenter__()
        assert "planted" not in str(caught.value) + repr(wrong) + repr(
            ClientConfig(token="planted")
        )
    assert {caller.address for caller in callers} == {"address 127.0.0.1"}


async def test_without_the_right_certificates_nothing_is_served(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    authority = Authority.make(tmp_path)
    async with listening(tls_config(authority, tmp_path, require_client_cert=True)) as (port, made):
        config = ClientConfig(
            use_tcp=True, tcp_port=port, tls_ca_file=authority.ca_file, use_environment=False,
            token=TOKEN,
        )  # fmt: skip
        with pytest.raises(RuntimeUnavailable):
            await dial(config)
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        await plain.send_all(b"\0\0\0\1\2" * 20)
        while await plain.receive_some():
            pass
        await plain.aclose()
        assert made.state.calls_accepted == 0


async def test_one_connection_too_many_is_closed_at_once(tmp_path: Path) -> None:
    config = RuntimeConfig(server=ServerConfig(max_connections_per_user=1))
    async with listening(config) as (port, _):
        first = await trio.open_tcp_stream("127.0.0.1", port)
        await trio.testing.wait_all_tasks_blocked(0.05)
        second = await trio.open_tcp_stream("127.0.0.1", port)
        assert await second.receive_some() == b""
        await first.aclose()
        await second.aclose()


def test_the_kernel_tells_the_groups_of_who_calls() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_credentials(ours)
    assert peer is not None
    assert (peer.uid, peer.gid) == (os.geteuid(), os.getegid())
    assert peer.groups >= {os.getegid(), *os.getgroups()}
