"""What check-config prints is a configuration file again, with its sources and no secrets."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.policy_files import ORIGIN_NAMES, Tree, documents, load_tree
from vastar_runtime.config import RuntimeConfig, Setting, load_config, render, render_for


def _write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "vastar.toml"
    file.write_text(text)
    return str(file)


_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "server": st.fixed_dictionaries(
            {},
            optional={
                "drain_s": st.floats(0, 3600),
                "socket_mode": st.sampled_from([0o600, 0o660, 0o666]),
                "use_tcp": st.booleans(),
                "tcp_port": st.integers(0, 65535),
                "tcp_also": st.lists(st.sampled_from(["1", "[::1]:2", "localhost:3"])),
                "socket_path": st.text(
                    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1
                ).map("/{}".format),
            },
        ),
        "log": st.fixed_dictionaries({}, optional={"level": st.sampled_from(["debug", "error"])}),
        "http": st.fixed_dictionaries({}, optional={"max_redirects": st.integers(0, 100)}),
    },
)


@given(tree=_SETTINGS)
def test_what_check_config_prints_loads_to_the_same_value(
    tree: dict[str, dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Printed and read again, a configuration is the same, with and without explanations."""
    flags = [
        Setting(f"{table}.{name}", value, "--flag", is_typed=True)
        for table, values in tree.items()
        for name, value in values.items()
    ]
    loaded = load_config(environ={}, flags=flags)
    for explain in (False, True):
        text = render(loaded, explain=explain)
        assert msgspec.convert(tomllib.loads(text), RuntimeConfig) == loaded.config


def test_the_print_says_where_a_value_came_from_and_hides_secrets(tmp_path: Path) -> None:
    file = _write(tmp_path, '[proxy]\nall = "http://user:hunter2@proxy.test:3128"\n')
    loaded = load_config(file=file, environ={"VASTAR_LOG_LEVEL": "debug"})
    text = render(loaded)
    assert "hunter2" not in text
    assert "proxy.test:3128" in text
    line = next(line for line in text.splitlines() if line.startswith("level"))
    assert line.split("#")[1] == " from VASTAR_LOG_LEVEL"
    tomllib.loads(text)


@given(tree=documents())
def test_what_is_printed_of_places_loads_to_the_same_value(
    tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only what was written there is live again: what a place inherits goes on being inherited."""
    folder = tmp_path_factory.mktemp("c")
    loaded = load_tree(tree, folder)
    for explain in (False, True):
        file = _write(folder, render(loaded, explain=explain))
        assert load_config(file=file, environ={}).config == loaded.config


_PLACES: Tree = {
    "defaults": {"retry": {"attempts": 4}},
    "tenants": {
        "acme": {
            "retry": {"base_s": 0.5},
            "breaker": {"min_calls": 3},
            "workspaces": {"w": {"retry": {"cap_s": 7.0}}},
        }
    },
    "origins": {"https://h": {"retry": {"base_s": 0.25}}},
}


def _section(text: str, title: str) -> list[str]:
    return text.partition(f"[{title}]\n")[2].partition("\n\n")[0].splitlines()


def test_what_a_place_inherits_is_a_comment_that_says_from_where(tmp_path: Path) -> None:
    text = render(load_tree(_PLACES, tmp_path))
    assert _section(text, "tenants.acme.workspaces.w.retry") == [
        '# mode = "enforce"  (from [defaults.retry])',
        "# attempts = 4  (from [defaults.retry])",
        "# base_s = 0.5  (from [tenants.acme.retry])",
        "# throttled_base_s = 1.0  (from [defaults.retry])",
        f"cap_s = 7.0                                       # from {tmp_path}/vastar.toml",
        "# retry_after_max_s = 120.0  (from [defaults.retry])",
        "# retry_after_jitter_ratio = 0.25  (from [defaults.retry])",
    ]
    assert "# slow_call_s is not set" in _section(text, "tenants.acme.breaker")
    assert "[tenants.acme.hedging]" not in text, "of which nothing is written there"


def test_what_holds_for_one_caller_and_where_it_is_written(tmp_path: Path) -> None:
    loaded = load_tree(_PLACES, tmp_path)
    text = render_for(loaded, tenant="acme", workspace="w", origin="https://h", explain=True)
    file = tmp_path / "vastar.toml"
    assert text.startswith('# What holds for tenant "acme", workspace "w", origin "https://h", ')
    notes = {
        line.partition(" = ")[0]: line.partition("  # ")[2] for line in _section(text, "retry")
    }
    assert notes["attempts"] == f"[defaults.retry], {file}"
    assert notes["base_s"] == f'[origins."https://h".retry], {file}'
    assert notes["cap_s"] == f"[tenants.acme.workspaces.w.retry], {file}"
    assert notes["mode"] == "default"
    read = tomllib.loads(text)
    assert read["retry"]["base_s"] == 0.25
    assert read["retry"]["cap_s"] == 7.0
    assert read["breaker"]["min_calls"] == 3
    assert "limit" not in read["rate_limit"]
    assert "# attempts in all, the first one included" in text
    assert "the one that all share has what defaults and origin say" in text


def test_of_a_caller_that_nothing_is_written_for_the_defaults_are_shown(tmp_path: Path) -> None:
    loaded = load_tree(_PLACES, tmp_path)
    text = render_for(loaded, tenant="other", origin=ORIGIN_NAMES[0])
    assert "# Nothing is written for it: the defaults hold." in text.splitlines()
    assert tomllib.loads(text)["retry"]["attempts"] == 4
    assert "that all share" not in text
    assert render_for(loaded).startswith("# What holds for everybody, ")


def test_a_name_cannot_end_a_comment(tmp_path: Path) -> None:
    tree = {"tenants": {"a\nb": {"retry": {"attempts": 5}}}}
    loaded = load_tree(tree, tmp_path)
    assert tomllib.loads(render_for(loaded, tenant="a\nb"))["retry"]["attempts"] == 5
