"""Databases and plug-ins, put together."""

import sys

import pytest

from tests.support.commands import serving, vastar
from vastar_runtime.config import (
    ConfigError,
    DatabaseConfig,
    PluginsConfig,
    RuntimeConfig,
    TenantConfig,
)
from vastar_runtime.further_connectors import FurtherConnectors, unusable_further
from vastar_runtime.policy_book import PolicyBook


def test_names():
    assert FurtherConnectors(RuntimeConfig(), {}).names == (
        "sqlite",
        "postgres",
        "db",
        "sql",
        "mysql",
    )


@pytest.mark.parametrize(
    ("name", "words"), [("http", "runtime's own"), ("nope", "no installed package offers")]
)
def test_plugins_that_cannot_be(name, words):
    with pytest.raises(ConfigError, match=words):
        FurtherConnectors(RuntimeConfig(plugins=PluginsConfig(load=(name,))), {})


def test_a_new_configuration_keeps_what_did_not_change(tmp_path):
    database = DatabaseConfig(url=f"sqlite://{tmp_path}/a.db")
    config = RuntimeConfig(tenants={"acme": TenantConfig(databases={"a": database})})
    further = FurtherConnectors(config, {})
    prepared = further.prepare(config)
    assert prepared == further._sources
    bad = DatabaseConfig(url="postgres://h/n", password="${env:NOPE}")
    with pytest.raises(ConfigError):
        further.prepare(RuntimeConfig(tenants={"acme": TenantConfig(databases={"a": bad})}))


def test_a_database_without_its_driver_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    databases = {name: DatabaseConfig(url=f"postgres://db.test/{name}") for name in ("a", "b")}
    config = RuntimeConfig(tenants={"acme": TenantConfig(databases=databases)})
    (problem,) = unusable_further(config, PolicyBook(config))
    assert problem.key == "tenants.acme.databases.a.url"
    assert "psycopg" in problem.wrong
    assert "vastar-connector-runtime[postgres]" in problem.right
    files = {"a": DatabaseConfig(url="sqlite:///tmp/a.db")}
    config = RuntimeConfig(tenants={"acme": TenantConfig(databases=files)})
    assert unusable_further(config, PolicyBook(config)) == []


@pytest.mark.slow
def test_every_command_says_that_the_driver_is_missing(tmp_path):
    """Psycopg itself refuses to be loaded in a way it does not know, as where it has no libpq."""
    file = tmp_path / "runtime.toml"
    lines = '[tenants.acme.databases.main]\nurl = "postgres://db.test/main"\n'
    file.write_text(lines)
    path = str(tmp_path / "r.sock")
    where = ["--config", str(file), "--socket", path]
    log = ["--log-file", str(tmp_path / "log")]
    for arguments in (["check-config"], ["serve"], ["serve", "--workers=2"], ["start", *log]):
        done = vastar(*arguments, *where, PSYCOPG_IMPL="none")
        assert done.returncode == 2, done.stderr
        assert "vastar-connector-runtime[postgres]" in done.stderr
        assert "Traceback" not in done.stderr
    file.write_text("")
    with serving(*where, variables={"PSYCOPG_IMPL": "none"}):
        file.write_text(lines)
        done = vastar("reload", *where[2:])
        assert done.returncode == 1
        assert "vastar-connector-runtime[postgres]" in done.stderr
