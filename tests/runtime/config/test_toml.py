"""What is written reads back as it was."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.config._toml import dotted, quoted, value_text, with_note

_TEXT = st.text(st.characters(codec="utf-8"))


@given(path=st.lists(_TEXT, min_size=1, max_size=4), value=_TEXT)
def test_any_key_and_text_read_back(path: list[str], value: str) -> None:
    read: Any = tomllib.loads(f"{dotted(path)} = {quoted(value)}")
    for name in path:
        read = read[name]
    assert read == value


@given(note=_TEXT)
def test_no_note_ends_its_line(note: str) -> None:
    assert tomllib.loads(with_note("a = 1", note)) == {"a": 1}


def test_names_are_bare_where_they_can_be() -> None:
    assert dotted(["tenants", "a_b-1", "a.b", ""]) == 'tenants.a_b-1."a.b".""'


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("socket_mode", 0o660, "0o660"),
        ("drain_s", 1e-7, "1e-7"),
        ("use_tcp", True, "true"),
        ("tcp_also", ("1", "\x7f"), '["1", "\\u007f"]'),
        ("mode", "off", '"off"'),
    ],
)
def test_values(name: str, value: object, text: str) -> None:
    assert value_text(name, value) == text
    assert tomllib.loads(f"x = {text}")["x"] == (list(value) if value == ("1", "\x7f") else value)
