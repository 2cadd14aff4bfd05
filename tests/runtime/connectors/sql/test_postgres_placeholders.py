"""Placeholders become numbers as psycopg has them."""

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")

from psycopg.adapt import PyFormat

from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.postgres_placeholders import plan_of


@pytest.mark.parametrize(
    ("text", "sent", "params", "values"),
    [
        ("select %s, %s", b"select $1, $2", [1, 2], [1, 2]),
        ("select '%s' || %s", b"select '$1' || $2", [1, 2], [1, 2]),
        ("select %(a)s, %(b)s, %(a)s", b"select $1, $2, $1", {"b": 2, "a": 1, "c": 3}, [1, 2]),
        ("select 5 %% %s", b"select 5 % $1", [3], [3]),
        ("select %%s", b"select %s", [], []),
        ("select %%%s", b"select %$1", [1], [1]),
        ("select 1", b"select 1", {}, ()),
        ("select 1", b"select 1", {"a": 1}, ()),
        ("select %(a)s", b"select $1", {"a": None}, [None]),
        ("select 5 %\n3", b"select 5 %\n3", [], []),
        ("select 5 %", b"select 5 %", [], []),
        ("select %b, %t", b"select $1, $2", [1, 2], [1, 2]),
        ("select %(ä ö)s", b"select $1", {"ä ö": 1}, [1]),
    ],
)
def test_they_have_numbers(text, sent, params, values):
    plan = plan_of(text, has_params=True)
    assert plan.text == sent
    assert list(plan.values(params)) == list(values)
    assert plan_of(text, has_params=True) is plan


def test_forms():
    plan = plan_of("%s %b %t", has_params=True)
    assert plan.formats == [PyFormat.AUTO, PyFormat.BINARY, PyFormat.TEXT]


def test_without_parameters_a_percent_sign_is_one():
    plan = plan_of("select 5 % 3, '%s', %(", has_params=False)
    assert plan.text == b"select 5 % 3, '%s', %("
    assert plan.values(None) == ()


def test_a_long_text_is_not_kept():
    text = "select %s" + " " * 10_000
    assert plan_of(text, has_params=True) is not plan_of(text, has_params=True)
    assert plan_of(text, has_params=True).text.startswith(b"select $1 ")


@pytest.mark.parametrize(
    ("text", "params", "words"),
    [
        ("select % ", [], "incomplete placeholder '% '"),
        ("select %(a", {"a": 1}, "incomplete placeholder"),
        ("select %x", [1], "not '%x'"),
        ("select %(a)x", {"a": 1}, "placeholders are %s"),
        ("select %s, %(a)s", [1, 2], "cannot be mixed"),
        ("select %(a)s, %s", [1, 2], "cannot be mixed"),
        ("select %(a)s, %(a)b", {"a": 1}, "two formats"),
        ("select %s", [], "1 placeholders, and there are 0"),
        ("select %s", [1, 2], "1 placeholders, and there are 2"),
        ("select %s", {"a": 1}, "without names"),
        ("select %s", {}, "1 placeholders"),
        ("select %(a)s", [1], "with names"),
        ("select %(a)s", [], "1 placeholders, and there are 0"),
        ("select %(a)s, %(b)s", {"a": 1}, "no parameter named b"),
        ("select \udc80", None, "surrogate"),
        ("select \0", None, "NUL"),
    ],
)
def test_the_callers_faults(text, params, words):
    with pytest.raises(SqlError, match=words.replace("(", r"\(")) as caught:
        plan_of(text, has_params=params is not None).values(params)
    assert caught.value.blame is Blame.CALLER
