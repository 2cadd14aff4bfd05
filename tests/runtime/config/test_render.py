"""What check-config prints is a configuration file again, with its sources and no secrets."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.config import RuntimeConfig, Setting, load_config, render


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
