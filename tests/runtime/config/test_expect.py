"""A type in words: what it takes, and what is wrong with a value."""

from typing import Annotated, Literal

import msgspec.inspect as mi
import pytest
from msgspec import Meta

from vastar_runtime.config._expect import outline, plain, right_value, show, suggest, wrong_value


@pytest.mark.parametrize(
    ("type_", "value", "wrong", "right"),
    [
        (Annotated[int, Meta(ge=1, le=9)], 10, "10 is out of range", "give a whole number from 1"),
        (Annotated[int, Meta(ge=1, le=9)], "x", '"x" is not a whole number', "give a whole number"),
        (Annotated[float, Meta(ge=0, le=1)], True, "true is not a number", "give a number from 0"),
        (Annotated[float, Meta(ge=0, le=1)], {}, "a table is not a number", "give a number"),
        (bool, 1, "1 is not true or false", "give true or false"),
        (Literal["ab", "cd"], "abb", '"abb" is not known', 'give one of "ab", "cd"; did'),
        (str, [1], "a list is not a text", "give a text"),
        (tuple[str, ...], "x", '"x" is not a list of texts', "give a list of texts"),
    ],
)
def test_wrong_and_right(type_: object, value: object, wrong: str, right: str) -> None:
    kind = mi.type_info(type_)
    assert wrong_value(kind, value, is_typed=True) == wrong
    assert right_value(kind, value).startswith(right)


def test_untyped_text_may_stand_for_a_number() -> None:
    kind = mi.type_info(Annotated[int, Meta(ge=1, le=9)])
    assert wrong_value(kind, "10", is_typed=False) == '"10" is out of range'
    assert wrong_value(kind, "10", is_typed=True) == '"10" is not a whole number'


def test_none_and_metadata_are_looked_through() -> None:
    kind = mi.type_info(Annotated[str | None, Meta(description="d", extra={"file": True})])
    assert isinstance(plain(kind), mi.StrType)
    assert outline(kind) == ("d", {"file": True})
    assert outline(mi.type_info(str)) == ("", {})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://u:p w@h", '"[redacted]"'),
        ("token=abc", '"token=[redacted]"'),
        ("x" * 90, '"' + "x" * 80 + '... (10 more characters)"'),
        (False, "false"),
        (2.5, "2.5"),
        ([], "a list"),
    ],
)
def test_values_are_shown_without_secrets(value: object, shown: str) -> None:
    assert show(value) == shown


def test_suggestions() -> None:
    assert suggest("Drian_S", ["drain_s", "log"]) == '; did you mean "drain_s"?'
    assert suggest("zzz", ["drain_s"]) == ""


def test_a_word_beside_numbers_is_named() -> None:
    kind = mi.type_info(Annotated[Annotated[int, Meta(ge=1, le=9)] | Literal["auto"], Meta()])
    assert wrong_value(kind, "0", is_typed=False) == '"0" is out of range'
    assert right_value(kind, 0) == 'give a whole number from 1 to 9, or "auto"'
    assert right_value(kind, "Auto").endswith('; did you mean "auto"?')
