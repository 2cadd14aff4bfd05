"""Texts that refer to secrets: what they are made of, and that no secret may stand in them."""

from pathlib import Path

import pytest

from vastar_runtime.config._references import (
    BadReference,
    Reference,
    beside,
    references_in,
    split_references,
)


def test_a_text_is_split_into_what_is_shown_and_what_is_looked_up():
    text = "Bearer ${file:/run/a key} x ${env:B_2}"
    assert split_references(text) == (
        "Bearer ",
        Reference("file", "/run/a key"),
        " x ",
        Reference("env", "B_2"),
    )
    assert references_in(text) == [Reference("file", "/run/a key"), Reference("env", "B_2")]
    assert split_references("${env:A}") == (Reference("env", "A"),)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "a secret does not belong"),
        ("sk-planted-123456789", "a secret does not belong"),
        ("Bearer planted", "a secret does not belong"),
        ("${vault:planted}", "refers to nothing that is known"),
        ("${file:}", "refers to nothing that is known"),
        ("${env:A", "refers to nothing that is known"),
        ("${env:A} ${x:planted}", "refers to something that is not known"),
        ("${x:planted} ${env:A}", "refers to something that is not known"),
        ("${env:9planted}", "no name of a variable"),
        ("${env:a-b}", "no name of a variable"),
        ("${file:a\nplanted}", "refers to nothing that is known"),
        ("a\r\nplanted: ${env:A}", "characters that a header cannot hold"),
        ("${env:A}\u00e9", "characters that a header cannot hold"),
        ("sk-planted-123456789 ${env:A}", "may be a secret itself"),
        ("planted " + "x" * 60 + "${env:A}", "may be a secret itself"),
        ("${env:A} token=planted", "may be a secret itself"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_quoted(text, wrong):
    with pytest.raises(BadReference) as error:
        split_references(text)
    assert wrong in error.value.wrong
    assert "planted" not in str(error.value)
    assert error.value.right


def test_relative_files_are_beside_the_configuration():
    text = "x ${file:keys/a} ${file:/b} ${env:C}"
    assert beside(text, Path("/etc/v")) == "x ${file:/etc/v/keys/a} ${file:/b} ${env:C}"
