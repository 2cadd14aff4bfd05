"""The egress guard and data sources: the configuration names them, so denying them takes words."""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import Databases, databases
from tests.support.log_lines import log_to
from tests.support.postgres import postgres_server
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime import logs
from vastar_runtime.config import ConfigError, load_config
from vastar_runtime.pipeline.guarding import POLICY
from vastar_runtime.policy.modes import Mode
from vastar_runtime.unusable import refuse_unusable

SOURCE = '[tenants.acme.databases.main]\nurl = "postgresql://app@{host}:{port}/postgres"\n'
QUICK = "connect_timeout_s = 1\n[defaults.retry]\nmode = 'off'\n"


def source(more: str = "", host: str = "db.test", port: int = 1) -> str:
    return SOURCE.format(host=host, port=port) + QUICK + more


@pytest.fixture
def audited(tmp_path) -> Iterator[Callable[[], list[dict[str, object]]]]:
    """What was told of the guard, as (event, rule, address)."""
    with log_to(tmp_path / "log") as fd:
        logs.configure("debug", "json", fd)

        def read() -> list[dict[str, object]]:
            events = map(json.loads, os.pread(fd, 1 << 22, 0).decode().splitlines())
            return [each for each in events if str(each.get("event", "")).startswith("egress")]

        yield read


def counts(db: Databases, mode: Mode) -> tuple[int, int]:
    gate = db.running.runtime._around.gates.of(POLICY, mode)
    return gate.applied, gate.observed


@pytest.mark.parametrize(
    ("more", "host", "words"),
    [
        ("", "169.254.169.254", "metadata"),
        ("[defaults.egress]\nmode = 'off'", "metadata.google.internal", "metadata"),
        ("[defaults.egress]\ndeny_hosts = ['*.test']", "db.test", "deny_hosts"),
        ("[tenants.acme.egress]\ndeny_ranges = ['10.0.0.0/8']", "10.1.2.3", "deny_ranges"),
        ("[origins.'postgres://[::1]:1'.egress]\ndeny_ranges = ['::/0']", "[::1]", "deny_ranges"),
    ],
)
def test_a_name_that_is_denied_is_refused_before_the_first_call(tmp_path, more, host, words):
    file = tmp_path / "vastar.toml"
    file.write_text(source(more, host))
    with pytest.raises(ConfigError) as caught:
        refuse_unusable(load_config(file=str(file), environ={}).config, {})
    assert f"rule {words}" in str(caught.value)
    assert "tenants.acme.databases.main.url" in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        "",
        "[defaults.egress]\naddresses = 'public'",
        "[defaults.egress]\nallow_hosts = ['api.test']\nallow_ports = [443]\nschemes = ['https']",
        "[tenants.acme]\nallow_uids = [4711]\n[server]\nsocket_mode = 0o666",
        "[defaults.egress]\nmode = 'observe'\ndeny_hosts = ['*']",
        "[defaults.egress]\ndeny_hosts = ['*']\n[tenants.acme.egress]\ndeny_hosts = []",
        "[defaults.egress]\ndeny_ranges = ['127.0.0.0/8']\nallow_ranges = ['127.0.0.1']",
    ],
)
def test_naming_a_database_is_to_allow_it(tmp_path, more):
    file = tmp_path / "vastar.toml"
    file.write_text(source(more, "127.0.0.1"))
    refuse_unusable(load_config(file=str(file), environ={}).config, {})


async def test_an_address_that_is_denied_is_refused_when_it_is_looked_up(tmp_path, audited):
    more = "[tenants.acme.egress]\ndeny_ranges = ['10.0.0.0/8']"
    async with databases(tmp_path, source(more)) as db:
        for address in ("10.1.2.3", "169.254.169.254"):
            db.running.network.names["db.test"] = [(address,)]
            got = await db.failed(ErrorClass.INVALID_REQUEST, "query", "select 1")
            whose = "runtime" if address.startswith("169") else "tenant"
            assert got.refused_by == f"egress_guard:{whose}"
            assert got.disposition is Disposition.NOT_SENT
            assert "db.test" in got.error_message
            assert address not in got.error_message  # whoever asks is not told what is inside
        # Not by the guard: what may be reached is tried, and nobody listens there.
        db.running.network.names["db.test"] = [("10.1.2.3", "127.0.0.1")]
        got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1")
        assert got.refused_by is None
        assert counts(db, Mode.ENFORCE) == (3, 0)
    told = [(each["event"], each["rule"], each["address"]) for each in audited()]
    assert told == [
        ("egress_refused", "deny_ranges", "10.1.2.3"),
        ("egress_refused", "metadata", "169.254.169.254"),
    ]


async def test_who_only_observes_is_told_what_would_be_refused(tmp_path, audited):
    more = "[defaults.egress]\nmode = 'observe'\ndeny_hosts = ['*.test']\n"
    more += "deny_ranges = ['127.0.0.0/8']"
    async with databases(tmp_path, source(more)) as db:
        db.running.network.names["db.test"] = [("127.0.0.1",)]
        got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1")
        assert got.refused_by is None
        assert counts(db, Mode.OBSERVE) == (0, 2)
        db.running.network.names["db.test"] = [("169.254.169.254",)]
        got = await db.failed(ErrorClass.INVALID_REQUEST, "query", "select 1")
        assert got.refused_by == "egress_guard:runtime"
    told = [(each["event"], each["rule"]) for each in audited()]
    assert told[:2] == [("egress_observed", "deny_hosts"), ("egress_observed", "deny_ranges")]
    assert told[-1] == ("egress_refused", "metadata")


@pytest.mark.slow
@pytest.mark.cap_s(60)
async def test_new_rules_close_what_is_open(tmp_path):
    with postgres_server() as server:
        text = SOURCE.format(host="db.test", port=server.port).replace("app@", "postgres@")
        async with databases(tmp_path, text + QUICK) as db:
            db.running.network.names["db.test"] = [("127.0.0.1",)]
            (pid,) = await db.query("select pg_backend_pid()")
            assert await db.query("select pg_backend_pid()") == [pid]
            file = tmp_path / "vastar.toml"
            file.write_text(text + QUICK + "[defaults.egress]\ndeny_ranges = ['127.0.0.0/8']")
            db.running.runtime.take_up(load_config(file=str(file), environ={}).config)
            got = await db.failed(ErrorClass.INVALID_REQUEST, "query", "select 1")
            assert got.refused_by == "egress_guard:tenant"
