"""Passwords of data sources."""

import pytest

from vastar_runtime.config import ConfigError, DatabaseConfig, RuntimeConfig, TenantConfig
from vastar_runtime.credentials.passwords import database_passwords


def config(password: str | None) -> RuntimeConfig:
    database = DatabaseConfig(url="postgres://u@h/n", password=password)
    return RuntimeConfig(tenants={"acme": TenantConfig(databases={"orders": database})})


def test_from_a_file_or_a_variable(tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    for text in (f"${{file:{tmp_path}/secret}}", "${env:PW}"):
        passwords = database_passwords(config(text), {"PW": "hunter2"})
        assert passwords["acme", "orders"]() == "hunter2"
    assert database_passwords(config(None), {}) == {}


def test_one_that_is_not_there():
    with pytest.raises(ConfigError, match=r"databases\.orders\.password"):
        database_passwords(config("${env:PW}"), {})
