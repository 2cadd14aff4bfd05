"""What README.md says is so: its connector runs, its tables and links are right."""

import ast
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from tests.support.commands import serving
from tests.support.example_world import example_world
from tests.support.snippets import Snippet, fences, missing_messages, sequences
from tools import dev
from vastar_runtime.cli._main import _parser
from vastar_runtime.config import (
    CredentialConfig,
    DatabaseConfig,
    OAuth2Config,
    PoliciesConfig,
    RuntimeConfig,
    load_config,
)
from vastar_runtime.config._policies import EVERYWHERE
from vastar_runtime.config._schema import policy_leaves
from vastar_runtime.policy_book import PolicyBook

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDE = ROOT / "vastar_client" / "CONNECTOR_DEVELOPER_GUIDE.md"
PAGE = README.read_text(encoding="utf-8")
WORDS = {
    "none": (None, ()),
    "the system's": (None,),
    "from the environment": (None, ()),
    "three quarters of the next": (None,),
}
UNITS = {"MiB": 1024 * 1024, "KiB": 1024}


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def connector() -> Snippet:
    (snippet,), _ = sequences(README).values()
    return snippet


def test_its_connector_runs_and_has_ten_lines_at_most(tmp_path, monkeypatch, capsys):
    assert len([line for line in connector().fence.text.splitlines() if line.strip()]) <= 10
    with example_world(tmp_path) as socket_path:
        monkeypatch.setenv("VASTAR_SOCKET_PATH", str(socket_path))
        exec(connector().code, {"__name__": "__main__"})
    assert ast.literal_eval(capsys.readouterr().out) == {
        "items": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    }


def test_its_connector_says_what_is_wrong_without_a_runtime(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VASTAR_SOCKET_PATH", str(tmp_path / "none"))
    exec(connector().code, {"__name__": "__main__"})
    assert re.search(
        r"Start one with `python -m vastar_runtime start --socket .+try again: True",
        capsys.readouterr().out,
    )


def test_the_two_commands():
    commands = next(f for f in fences(README) if f.language == "sh").text.splitlines()
    assert commands == ["python3 tools/dev.py demo", "python3 tools/dev.py test"]
    assert dev.COMMANDS["demo"] is dev.demo
    assert dev.COMMANDS["test"] is dev.test


def test_every_vastar_command_is_one():
    lines = [line for f in fences(README) if f.language == "sh" for line in f.text.splitlines()]
    commands = [line.partition("#")[0].split() for line in lines if line.startswith("vastar ")]
    assert len(commands) == 8
    commands += [text.split() for text in re.findall(r"`(vastar (?:serve|status) [^`]+)`", PAGE)]
    assert len(commands) == 10
    for command in commands:
        _parser().parse_args(command[1:])


def default_of(key: str) -> object:
    value: object = RuntimeConfig()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def said(text: str) -> tuple[object, ...]:
    """What a cell of the column `default` may stand for."""
    if text in WORDS:
        return WORDS[text]
    number, _, unit = text.partition(" ")
    if unit in UNITS:
        return (int(number) * UNITS[unit],)
    assert text.startswith("`"), text
    text = text.strip("`")
    try:
        return (tomllib.loads(f"x = {text}")["x"],)
    except tomllib.TOMLDecodeError:
        return (text,)


CONFIGURATION = [
    (key, defaults[index] if len(defaults) > 1 else defaults[0])
    for keys_cell, default_cell, _ in rows(section("Configuration"))
    for keys in [re.findall(r"`([^`]+)`", keys_cell)]
    for defaults in [default_cell.split(", ")]
    for index, key in enumerate(keys)
    if ".NAME." not in key  # below a name that the operator chooses: no default has one
]


@pytest.mark.parametrize(("key", "default"), CONFIGURATION, ids=[key for key, _ in CONFIGURATION])
def test_each_key_of_the_table_exists_with_that_default(key, default):
    found = default_of(key)
    assert found in said(default)


def test_proxies_come_from_the_environment():
    assert RuntimeConfig().proxy.use_environment


def test_the_table_names_every_group_of_keys():
    """Tenants and origins have no keys of their own: theirs are in the section on policies."""
    named = {key.split(".")[0] for key, _ in CONFIGURATION}
    assert named == set(RuntimeConfig.__struct_fields__) - {"tenants", "origins"}
    assert all(isinstance(getattr(RuntimeConfig(), name), msgspec.Struct) for name in named)


def test_the_table_of_policies_says_where_each_may_stand():
    """A policy's first number stands for all of them; modes stand everywhere."""
    told = {}
    for names_cell, _, places_cell in rows(section("Policies")):
        for name in re.findall(r"`([^`]+)`", names_cell):
            told[name] = places_cell.split(", ")
    assert set(told) == set(PoliciesConfig.__struct_fields__)
    for name, places in told.items():
        keys = getattr(PoliciesConfig(), name).__struct_fields__
        number = keys[-1]
        assert number != "mode"
        assert [p for p in EVERYWHERE if number in policy_leaves(p).get(name, ())] == places, name


def test_the_configuration_files_it_shows_load(tmp_path):
    text, credentials, _ = [f.text for f in fences(README) if f.language == "toml"]
    file = tmp_path / "vastar.toml"
    file.write_text(credentials)
    acme = load_config(file=str(file), environ={}).config.tenants["acme"]
    assert acme.credentials.keys() == {"https://api.openai.com"}
    file.write_text(text)
    book = PolicyBook(load_config(file=str(file), environ={}).config)
    policies = book.of("acme", "prod", "https://api.example.com")
    assert policies.retry.attempts == 2
    assert policies.tenant_limits.requests.limit == 100
    assert (policies.limits.tokens.rate.limit, policies.limits.tokens.rate.period_s) == (60_000, 60)
    assert policies.breaker.mode.value == "observe"


def test_the_keys_of_credentials_are_all_named():
    named = {
        key for keys, *_ in rows(section("Credentials")) for key in re.findall(r"`([^`]+)`", keys)
    }
    assert named == {
        *(key for key in CredentialConfig.__struct_fields__ if key != "oauth2"),
        *(f"oauth2.{key}" for key in OAuth2Config.__struct_fields__),
    }


def test_its_database_example_runs(tmp_path, monkeypatch, capsys):
    _, _, text = [f.text for f in fences(README) if f.language == "toml"]
    assert "sqlite:///var/lib/vastar/" in text
    file, socket_path = tmp_path / "vastar.toml", tmp_path / "s"
    file.write_text(text.replace("sqlite:///var/lib/vastar/", f"sqlite://{tmp_path}/"))
    _, (snippet,) = sequences(README).values()
    with serving("--config", str(file), "--socket", str(socket_path)):
        monkeypatch.setenv("VASTAR_SOCKET_PATH", str(socket_path))
        exec(snippet.code, {"__name__": "__main__"})
    assert capsys.readouterr().out == "1 one\n2 two\n"


def test_the_keys_of_databases_are_all_named_with_their_defaults():
    named = {}
    for keys_cell, default_cell, _ in rows(section("Databases")):
        keys, defaults = re.findall(r"`([^`]+)`", keys_cell), default_cell.split(", ")
        defaults *= len(keys) // len(defaults)
        named.update(zip(keys, defaults, strict=True))
    assert set(named) == set(DatabaseConfig.__struct_fields__)
    for key, default in named.items():
        assert getattr(DatabaseConfig(), key) in said(default), key


def test_the_command_for_one_caller_is_one():
    (line,) = re.findall(r"`vastar (check-config --tenant [^`]+)`", section("Policies"))
    assert _parser().parse_args(line.split()).origin == "https://api.example.com"


def test_links_and_files_exist():
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE)
    paths = re.findall(r"`([\w./]+(?:/|\.py|\.md|\.toml))`", PAGE)
    wanted = {t for t in [*targets, *paths] if not t.startswith(("http", "/"))}
    assert len(wanted) > 8
    for name in sorted(wanted):
        near = [ROOT / name, ROOT / "vastar_client" / name]
        assert any(path.exists() for path in near), name


def test_quoted_messages_are_said_somewhere():
    """In the sources, or in what the guide's code is known to print."""
    shown = "\n".join(fence.text for fence in fences(GUIDE) if fence.language == "text")
    assert missing_messages(PAGE, shown, ROOT) == []
