"""Databases and plug-ins, put together."""

import pytest

from vastar_runtime.config import (
    ConfigError,
    DatabaseConfig,
    PluginsConfig,
    RuntimeConfig,
    TenantConfig,
)
from vastar_runtime.further_connectors import FurtherConnectors


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
