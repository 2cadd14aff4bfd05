"""The runtime put together: what the configuration becomes, its drain, and its end."""

import pytest
import trio
import trio.testing

from tests.support.http_calls import ORIGIN, json_of
from tests.support.running import http_request, running
from vastar_client.wire import (
    CreditUpdate,
    ErrorClass,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
)
from vastar_runtime.assembly import Clocks, refuse_unusable, transport_settings
from vastar_runtime.config import (
    ConfigError,
    HttpConfig,
    PoolConfig,
    ProxyConfig,
    RuntimeConfig,
    TlsConfig,
)


def test_the_transport_is_told_what_the_configuration_says():
    config = RuntimeConfig(
        http=HttpConfig(
            connect_timeout_s=1.5,
            max_header_bytes=2048,
            dns_threads=3,
            pool=PoolConfig(
                max_connections_per_key=4, max_connections=5, idle_timeout_s=6.0, max_age_s=7.0
            ),
        ),
        tls=TlsConfig(
            ca_file="ca", client_cert_file="cert", client_key_file="key",
            client_key_password_file="password",
        ),
        proxy=ProxyConfig(http="http://p:1", no_proxy=("a",), use_environment=False),
    )  # fmt: skip
    settings = transport_settings(config)
    assert (settings.connect_timeout_s, settings.head_limit_bytes) == (1.5, 2048)
    assert (settings.connections_per_key, settings.connections_total) == (4, 5)
    assert settings.connections_per_tenant == 3, "what is not said is three quarters of all"
    assert (settings.idle_timeout_s, settings.max_age_s, settings.lookup_threads) == (6.0, 7.0, 3)
    tls = settings.tls
    assert (tls.ca_file, tls.certificate_file, tls.key_file) == ("ca", "cert", "key")
    assert tls.key_password_file == "password"
    proxy = settings.proxy
    assert (proxy.http, proxy.https, proxy.no_proxy) == ("http://p:1", None, ("a",))
    assert not proxy.environment


def test_the_default_configuration_is_a_valid_transport():
    assert transport_settings(RuntimeConfig()).proxy.no_proxy is None


def test_every_number_that_is_allowed_is_one_that_the_transport_takes():
    """The least that a configuration may say must not stop the runtime from starting."""
    pool = PoolConfig(
        max_connections_per_key=1, max_connections=1, idle_timeout_s=0.001, max_age_s=1.0
    )
    http = HttpConfig(
        connect_timeout_s=0.001, max_header_bytes=1024, dns_threads=1, max_redirects=0, pool=pool
    )
    assert transport_settings(RuntimeConfig(http=http)).connections_per_tenant == 1


def test_what_one_tenant_may_hold_can_be_said():
    pool = PoolConfig(max_connections_per_tenant=1000)
    assert (
        transport_settings(RuntimeConfig(http=HttpConfig(pool=pool))).connections_per_tenant == 1000
    )


def test_the_real_clocks_are_real():
    clocks = Clocks()
    assert clocks.wall_clock_ms() > 1_600_000_000_000
    numbers = {clocks.random_u64() for _ in range(10)}
    assert len(numbers) == 10
    assert all(0 <= number < 2**64 for number in numbers)


async def test_draining_finishes_what_is_under_way_and_refuses_the_rest(autojump_clock):
    async with running() as runtime:
        old, new, credited = runtime.caller(), runtime.caller(), runtime.caller()
        await credited.send(CreditUpdate(credit_delta=1))
        assert isinstance(await credited.receive(), CreditUpdate)
        await old.send(http_request(1, {"url": f"{ORIGIN}/sleep?ms=5000"}))
        await runtime.upstream.wait_for("sleep_start")
        async with trio.open_nursery() as nursery:
            drained: list[bool] = []

            async def drain() -> None:
                drained.append(await runtime.runtime.drain(30))

            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            await new.send(http_request(2, {"url": f"{ORIGIN}/small"}), HealthCheck())
            refused, health = await new.receive(), await new.receive()
            assert isinstance(refused, ExecuteResponse)
            assert refused.error_class is ErrorClass.TRANSIENT
            assert isinstance(health, HealthResponse)
            assert not health.healthy
            goaway = await credited.receive()
            assert goaway == Goaway(reason="draining", drain_ms=30_000)
            answer = await old.receive()
            assert isinstance(answer, ExecuteResponse)
            assert json_of(answer)["status_code"] == 200
        assert drained == [True]
        assert trio.current_time() == 5
        for caller in (old, new, credited):
            await caller.close()


async def test_a_drain_does_not_wait_longer_than_told(autojump_clock):
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send(http_request(1, {"url": f"{ORIGIN}/sleep?ms=20000"}))
        await runtime.upstream.wait_for("sleep_start")
        assert not await runtime.runtime.drain(2)
        assert trio.current_time() == 2
        await caller.close()


async def test_idle_upstream_connections_are_closed_in_time(autojump_clock):
    async with running() as runtime:
        json_of(await runtime.http({"url": f"{ORIGIN}/small"}))
        assert [channel.closed for channel in runtime.network.channels] == [False]
        await trio.sleep(29)
        assert not runtime.network.channels[0].closed
        await trio.sleep(2)
        assert runtime.network.channels[0].closed
        assert runtime.runtime.pools() == []


async def test_tenants_and_workspaces_share_no_connection(autojump_clock):
    async with running() as runtime:
        for tenant, workspace in (("a", "x"), ("b", "x"), ("a", "y"), ("a", None), ("a", "x")):
            answer = await runtime.http(
                {"url": f"{ORIGIN}/small"}, tenant_id=tenant, workspace_id=workspace
            )
            json_of(answer)
        assert len(runtime.network.channels) == 4


async def test_64_pipelined_calls_to_a_slow_upstream_take_the_time_of_one(autojump_clock):
    async with running() as runtime:
        caller = runtime.caller()
        for request_id in range(64):
            await caller.send(http_request(request_id, {"url": f"{ORIGIN}/sleep?ms=100"}))
        got = await caller.receive_many(64)
        assert {message.request_id for message in got} == set(range(64))  # type: ignore[union-attr]
        assert trio.current_time() < 0.11
        await caller.close()


def test_what_only_its_use_can_show_is_refused_before_anything_starts(tmp_path):
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("nothing\n")
    config = RuntimeConfig(tls=TlsConfig(ca_file=str(no_certificate)))
    with pytest.raises(ConfigError, match=r"ca\.pem: tls: .*; give PEM files"):
        refuse_unusable(config, {})
    secret = {"HTTPS_PROXY": "http://u:hunter2@:99999"}
    with pytest.raises(ConfigError, match="HTTPS_PROXY is no proxy URL") as caught:
        refuse_unusable(RuntimeConfig(), secret)
    assert "hunter2" not in str(caught.value)
    refuse_unusable(RuntimeConfig(), {"HTTP_PROXY": "socks5://localhost:1080"})
