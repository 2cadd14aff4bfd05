"""The egress guard through the whole runtime: rebinding, redirects, pools, proxies, modes, audit.

The table of what it refuses is `test_hostile_table`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.support.hostile_world import GOOD, METADATA, PUBLIC, config, world
from tests.support.http_calls import json_of
from tests.support.running import http_request
from vastar_client.wire import Disposition, ErrorClass, StreamEnd
from vastar_runtime.audit import AuditLog, use
from vastar_runtime.config import ProxyConfig, RuntimeConfig, TenantConfig

# --- rebinding, redirects, reuse ------------------------------------------------------------------


async def test_a_name_that_changes_its_mind_gets_the_address_that_was_judged(
    autojump_clock: object,
) -> None:
    async with world() as runtime:
        runtime.network.names["rebind.test"] = [(PUBLIC,), ("127.0.0.1",)]
        json_of(await runtime.http({"url": "http://rebind.test/nolen"}))  # which closes
        assert runtime.network.lookups == ["rebind.test"]
        assert runtime.network.connected == [PUBLIC]
        answer = await runtime.http({"url": "http://rebind.test/small", "method": "POST"})
        assert "rule loopback:" in str(answer.error_message)
        assert runtime.network.connected == [PUBLIC]


async def test_of_mixed_answers_only_what_may_be_reached_is(autojump_clock: object) -> None:
    async with world() as runtime:
        runtime.network.names["mixed.test"] = [("127.0.0.1", "::1", PUBLIC, METADATA, "10.0.0.1")]
        json_of(await runtime.http({"url": "http://mixed.test/small"}))
        assert runtime.network.connected == [PUBLIC]


def redirect(to: str, status: int = 302) -> str:
    return f"http://good.test/redir?st={status}&to={quote(to, safe='')}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("to", "rule"),
    [
        ("http://127.0.0.1/x", "loopback"),
        ("//127.0.0.1/x", "loopback"),
        ("\\\\127.0.0.1\\x", "loopback"),
        ("http://0x7f.1/x", "loopback"),
        ("http://[::ffff:10.0.0.1]/x", "private"),
        ("http://intra.test/x", "private"),
        ("http://evil.test/x", "deny_hosts"),
        ("http://good.test:22/x", "allow_ports"),
        (f"http://{METADATA}/latest", "metadata"),
        ("http://metadata.test/latest", "metadata"),
        (redirect(redirect("http://localhost/x")), "loopback"),
    ],
)
async def test_a_redirect_to_inside_ends_there(
    to: str, rule: str, status: int, autojump_clock: object
) -> None:
    async with world() as runtime:
        answer = await runtime.http({"url": redirect(to, status)})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert f"rule {rule}:" in str(answer.error_message)
        assert answer.disposition is Disposition.RESPONSE_STARTED, "the first hop was answered"
        assert set(runtime.network.connected) == {PUBLIC}


async def test_a_redirect_to_no_url_is_the_answer(autojump_clock: object) -> None:
    async with world() as runtime:
        for to in ("file:///etc/passwd", "http://[fe80::1%25eth0]/", "gopher://127.0.0.1/"):
            assert json_of(await runtime.http({"url": redirect(to)}))["status_code"] == 302


async def test_a_pooled_connection_is_for_its_own_name(autojump_clock: object) -> None:
    """What was opened for a good name does not serve a bad one at the same address."""
    async with world() as runtime:
        json_of(await runtime.http({"url": GOOD}))
        runtime.network.names["evil.test"] = [(PUBLIC,)]
        answer = await runtime.http(
            {"url": "http://evil.test/small", "headers": {"Host": "good.test"}}
        )
        assert "rule deny_hosts:" in str(answer.error_message)
        assert len(runtime.upstream.seen("req")) == 1


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("evil.test", "deny_hosts"),
        ("EVIL.test.:8443", "deny_hosts"),
        ("Evil.Test:", "deny_hosts"),
        ("metadata.google.internal", "metadata"),
        ("127.0.0.1", "loopback"),
        ("[::1]:80", "loopback"),
        ("", "host_header"),
        ("good.test, evil.test", "host_header"),
        ("good.test/@evil.test", "host_header"),
    ],
)
async def test_a_front_is_not_asked_for_a_site_that_may_not_be_reached(
    host: str, rule: str, autojump_clock: object
) -> None:
    async with world() as runtime:
        answer = await runtime.http({"url": GOOD, "headers": {"Host": host}})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert f"rule {rule}:" in str(answer.error_message)
        assert not runtime.network.connected
        for fine in ("GOOD.test:80", "other.test"):
            json_of(await runtime.http({"url": GOOD, "headers": {"Host": fine}}))


async def test_after_a_reload_open_connections_are_judged_anew(autojump_clock: object) -> None:
    async with world(config({})) as runtime:
        json_of(await runtime.http({"url": "http://intra.test/small"}))
        json_of(await runtime.http({"url": "http://intra.test/small"}))
        assert runtime.network.connected == ["10.0.0.5"]
        runtime.runtime.take_up(config())
        answer = await runtime.http({"url": "http://intra.test/small"})
        assert "rule private:" in str(answer.error_message)
        runtime.runtime.take_up(config({}))
        json_of(await runtime.http({"url": "http://intra.test/small"}))
        assert runtime.network.connected == ["10.0.0.5", "10.0.0.5"]


# --- streams, proxies, modes ----------------------------------------------------------------------


async def test_streams_are_refused_alike(autojump_clock: object) -> None:
    async with world() as runtime:
        caller = runtime.caller()
        await caller.send(http_request(1, {"url": "http://intra.test/"}, stream=True))
        end = await caller.receive()
        assert isinstance(end, StreamEnd)
        assert end.error_class is ErrorClass.INVALID_REQUEST
        assert "rule private:" in str(end.error_message)
        await caller.close()


PROXIES = ["http://proxy.test:3128", "socks5h://proxy.test:1080", "socks5://proxy.test:1080"]


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://127.0.0.1/", "loopback"),
        ("https://[::1]/", "loopback"),
        ("http://0x7f.1/", "loopback"),
        ("http://evil.test/", "deny_hosts"),
        ("https://good.test:22/", "allow_ports"),
        (f"https://{METADATA}/", "metadata"),
        ("http://metadata.google.internal/", "metadata"),
    ],
)
async def test_behind_a_proxy_names_and_literal_addresses_are_judged(
    url: str, rule: str, proxy: str, autojump_clock: object
) -> None:
    async with world(config(proxy=ProxyConfig(all=proxy))) as runtime:
        runtime.network.names["proxy.test"] = [("10.9.9.9",)]
        answer = await runtime.http({"url": url})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert f"rule {rule}:" in str(answer.error_message)
        assert runtime.network.connected == []


@pytest.mark.parametrize("address", [METADATA, "::ffff:169.254.169.254", "fd00:ec2::254"])
@pytest.mark.parametrize("proxy", PROXIES)
async def test_metadata_is_no_proxy(address: str, proxy: str, autojump_clock: object) -> None:
    made = config({"mode": "off"}, proxy=ProxyConfig(all=proxy))
    async with world(made) as runtime:
        runtime.network.names["proxy.test"] = [(address,)]
        answer = await runtime.http({"url": GOOD})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert "rule metadata:" in str(answer.error_message)
        assert runtime.network.connected == []


async def test_a_proxy_may_stand_inside(autojump_clock: object) -> None:
    made = config(proxy=ProxyConfig(http="http://proxy.test:3128"))
    async with world(made) as runtime:
        runtime.network.names["proxy.test"] = [("10.9.9.9",)]
        json_of(await runtime.http({"url": GOOD}))
        assert runtime.network.connected == ["10.9.9.9"]
        assert runtime.upstream.seen("req")[0]["target"] == "http://good.test/small"


async def test_a_name_behind_socks5_is_looked_up_here_and_judged(autojump_clock: object) -> None:
    made = config(proxy=ProxyConfig(all="socks5://proxy.test:1080"))
    async with world(made) as runtime:
        runtime.network.names["proxy.test"] = [("10.9.9.9",)]
        answer = await runtime.http({"url": "http://intra.test/"})
        assert "rule private:" in str(answer.error_message)
        assert runtime.network.connected == []


# --- modes, tenants, accounts ---------------------------------------------------------------------


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines of the audit log so far, without their times."""
    path = tmp_path / "audit.log"
    log = AuditLog(str(path))
    before = use(log)

    def lines() -> list[dict[str, Any]]:
        found = [msgspec.json.decode(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in each.items() if k != "timestamp"} for each in found]

    yield lines
    use(before)
    log.close()


Lines = Callable[[], list[dict[str, Any]]]


async def test_a_refusal_is_counted_and_audited_with_the_address(
    audited: Lines, autojump_clock: object
) -> None:
    async with world() as runtime:
        await runtime.http({"url": "http://intra.test/"}, trace_id="t1", workspace_id="w")
        await runtime.http({"url": "http://evil.test/"})
        text = (await runtime.runtime.metrics()).decode()
    assert 'vastar_refusals_total{policy="egress_guard",scope="tenant"} 2.0' in text
    common = {"audit": True, "event": "egress_refused", "tenant": "acme"}
    lines = audited()
    for line in lines:
        assert line.pop("connection")
    assert lines == [
        {
            **common,
            "workspace": "w",
            "origin": "http://intra.test",
            "rule": "private",
            "address": "10.0.0.5",
            "trace_id": "t1",
        },
        {**common, "origin": "http://evil.test", "rule": "deny_hosts"},
    ]


async def test_observed_refusals_change_nothing_and_are_told(
    audited: Lines, autojump_clock: object
) -> None:
    rules = {"addresses": "public", "mode": "observe", "deny_hosts": ("evil.test",)}
    async with world(config(rules)) as runtime:
        runtime.network.names["evil.test"] = [(PUBLIC,)]
        for url in ("http://intra.test/small", "http://evil.test/small", "http://10.1.1.1/small"):
            answer = await runtime.http({"url": url})
            assert json_of(answer)["status_code"] == 200
            assert answer.refused_by is None
        policies = runtime.runtime.policies()["policies"]
        (row,) = [each for each in policies if each["policy"] == "egress_guard"]
        assert (row["mode"], row["applied"], row["observed"]) == ("observe", 0, 3)
    told = [(line["event"], line["rule"], line.get("address")) for line in audited()]
    assert told == [
        ("egress_observed", "private", "10.0.0.5"),
        ("egress_observed", "deny_hosts", None),
        ("egress_observed", "private", None),
    ]


async def test_where_nobody_is_said_to_use_a_tenant_all_but_metadata_is_reached(
    autojump_clock: object,
) -> None:
    made = RuntimeConfig(tenants={"acme": TenantConfig({"retry": {"attempts": 1}})})
    async with world(made) as runtime:
        for url in ("http://127.0.0.1/small", "http://[::1]:8080/small", "http://intra.test/small"):
            json_of(await runtime.http({"url": url}))
        answer = await runtime.http({"url": "http://metadata.test/"})
        assert "rule metadata:" in str(answer.error_message)


async def test_each_tenant_has_its_own_rules(autojump_clock: object) -> None:
    made = config(
        tenants={
            "a": TenantConfig({"egress": {"allow_hosts": ("good.test",)}}),
            "b": TenantConfig(
                {"egress": {"allow_ranges": ("10.0.0.0/24",)}},
                {"w": {"egress": {"allow_ranges": ("192.168.0.0/16",)}}},
            ),
        },
        origins={"http://localhost:8080": {"egress": {"allow_ranges": ("127.0.0.0/8",)}}},
    )
    async with world(made) as runtime:
        for url, tenant, workspace, rule in (
            ("http://good.test/small", "a", None, None),
            ("http://own.test/small", "a", None, "allow_hosts"),
            ("http://good.test/small", "b", None, None),
            ("http://intra.test/small", "a", None, "allow_hosts"),
            ("http://intra.test/small", "b", None, None),
            ("http://intra.test/small", "b", "w", "private"),
            ("http://192.168.1.1/small", "b", "w", None),
            ("http://192.168.1.1/small", "b", None, "private"),
            ("http://localhost:8080/small", "b", None, None),
            ("http://localhost/small", "b", None, "loopback"),
        ):
            answer = await runtime.http({"url": url}, tenant_id=tenant, workspace_id=workspace)
            if rule is None:
                json_of(answer)
            else:
                assert f"rule {rule}:" in str(answer.error_message), url


async def test_a_refused_call_leaves_no_trace_at_any_machine(autojump_clock: object) -> None:
    async with world() as runtime:
        keys = runtime.runtime.policies()["keys"]
        for number in range(20):
            await runtime.http({"url": f"http://10.0.0.{number}/"})
        assert runtime.runtime.policies()["keys"] == keys
        for _ in range(10):  # nor does what is refused by address open a circuit
            answer = await runtime.http({"url": "http://intra.test/"})
            assert answer.refused_by == "egress_guard:tenant"


async def test_a_retry_that_is_refused_hides_no_failure_from_the_circuit(
    autojump_clock: object,
) -> None:
    async with world() as runtime:
        for _ in range(5):
            runtime.network.names["dying.test"] = [(PUBLIC,), ("10.0.0.1",)]
            answer = await runtime.http({"url": "http://dying.test/closenow"})
            assert "closed before the response" in str(answer.error_message)
            assert (answer.refused_by, answer.attempts) == ("egress_guard:tenant", 2)
        answer = await runtime.http({"url": "http://dying.test/closenow"})
        assert answer.refused_by == "circuit_breaker:origin"
