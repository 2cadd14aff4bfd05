"""Data sources in a file."""

from pathlib import Path

import pytest

from vastar_runtime.config import (
    BadName,
    ConfigError,
    DatabaseAddress,
    DatabaseConfig,
    RuntimeConfig,
    canonical_server,
    compare,
    database_address,
    load_config,
    render,
)

SOURCE = """
[tenants.acme.databases.orders]
url = "postgresql://app@db.example.com/orders?sslmode=require"
password = "${file:secret}"
read_only = true
[tenants.acme.databases.local]
url = "sqlite:///var/lib/local%20one.db"
"""


def load(tmp_path: Path, text: str):
    file = tmp_path / "vastar.toml"
    file.write_text(text)
    return load_config(file=str(file), environ={})


def test_read_and_printed(tmp_path):
    loaded = load(tmp_path, SOURCE)
    databases = loaded.config.tenants["acme"].databases
    assert set(databases) == {"orders", "local"}
    assert databases["orders"].password == f"${{file:{tmp_path}/secret}}"
    assert databases["orders"].read_only
    assert repr(databases["orders"]) == "DatabaseConfig(...)"
    text = render(loaded)
    assert "[tenants.acme.databases.orders]" in text
    again = load(tmp_path, text).config
    assert again == loaded.config
    changes = compare(RuntimeConfig(), loaded.config)
    assert "tenants.acme.databases.local.url" in changes.applied
    assert not changes.needs_restart


def test_addresses():
    assert database_address("sqlite:///a/b%20c.db") == DatabaseAddress("sqlite", "/a/b c.db")
    there = database_address("postgres://u%40x@[::1]:5/n?sslmode=require")
    assert there == DatabaseAddress("postgres", "n", "::1", 5, "u@x", (("sslmode", "require"),))
    assert there.origin == "postgres://[::1]:5"
    assert database_address("postgresql://h/n").origin == "postgres://h:5432"
    assert database_address("sqlite:///a.db").origin == "sqlite:///a.db"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://h/n", "scheme"),
        ("postgres://u:hunter2@h/n", "password"),
        ("postgres://h", "name"),
        ("postgres:///n", "host"),
        ("postgres://h:x/n", "no URL"),
        ("postgres://h:0/n", "host"),
        ("postgres://h/n?options=-c", "option"),
        ("postgres://h/n#x", "fragment"),
        ("sqlite://host/a.db", "absolute"),
        ("sqlite:a.db", "absolute"),
        ("sqlite:///a.db?mode=rw", "absolute"),
        ("sqlite:///a%00b.db", "characters"),
        ("postgres://h/n%0ax", "characters"),
        ("postgres://one,two/n", "host"),
    ],
)
def test_urls_that_are_none(tmp_path, url, words):
    with pytest.raises(ValueError, match=words):
        database_address(url)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f'[tenants.acme.databases.x]\nurl = "{url}"')
    assert "tenants.acme.databases.x.url" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("postgres://DB.example.com", "postgres://db.example.com:5432"),
        ("postgresql://db.example.com:6000", "postgres://db.example.com:6000"),
        ("postgres://[0:0:0:0:0:0:0:1]", "postgres://[::1]:5432"),
        ("sqlite:///var/lib/a b%25.db", "sqlite:///var/lib/a%20b%25.db"),
        ("HTTPS://api.test:443", "https://api.test"),
    ],
)
def test_servers_have_policies_as_origins_have(tmp_path, name, origin):
    assert canonical_server(name) == origin
    assert canonical_server(origin) == origin
    loaded = load(tmp_path, f'[origins."{name}".bulkhead]\nmax_per_origin = 3')
    assert set(loaded.config.origins) == {origin}
    assert load(tmp_path, render(loaded)).config == loaded.config


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("postgres://u@h", "user part"),
        ("postgres://h/name", 'write "postgres://h:5432"'),
        ("postgres://", "no host"),
        ("postgres://h:x", "no URL"),
        ("sqlite://host/a", "absolute"),
        ("mysql://h", "not supported"),
        ("db.example.com", "no scheme"),
    ],
)
def test_what_is_no_server(name, words):
    with pytest.raises(BadName, match=words):
        canonical_server(name)


def test_everything_else_that_is_wrong(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path,
            """
            [tenants.acme.databases."a b"]
            url = "postgres://u@h/n"
            user = "v"
            password = "hunter2"
            [tenants.acme.databases.none]
            read_only = true
            [tenants.acme.databases.more]
            max_rows = 0
            """,
        )
    text = str(caught.value)
    assert "hunter2" not in text
    assert "max_rows" in text
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path,
            """
            [tenants.acme.databases."a b"]
            url = "postgres://u@h/n"
            user = "v"
            password = "hunter2"
            [tenants.acme.databases.none]
            read_only = true
            """,
        )
    text = str(caught.value)
    assert "no name of a data source" in text
    assert "names a user too" in text
    assert "none.url" in text
    assert "hunter2" not in text


def test_what_it_is_by_default():
    assert not DatabaseConfig().read_only
    assert RuntimeConfig().plugins.load == ()
