"""Secrets from files and variables: read anew when they change, kept when they vanish."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.log_lines import Lines, log_lines
from vastar_runtime.config import Reference, split_references
from vastar_runtime.credentials import secrets
from vastar_runtime.credentials.secrets import (
    MAX_SECRET_BYTES,
    SecretFile,
    SecretText,
    UnusableSecret,
    read_variable,
)


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    with log_lines(tmp_path) as found:
        yield found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_bytes(b" planted-1\r\n\n")
    return file


def replace(path: Path, data: bytes) -> None:
    """As careful programs do: written beside it and moved over it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.rename(path)


def test_a_file_is_looked_at_once_a_second(path):
    file = SecretFile(str(path))
    assert (file.text, file.version) == ("planted-1", 1)
    file.refresh(100)
    replace(path, b"planted-2")
    file.refresh(100.9)
    assert file.text == "planted-1"
    file.refresh(101)
    assert (file.text, file.version) == ("planted-2", 2)


def test_each_way_of_changing_a_file_is_seen(path, tmp_path, lines):
    file = SecretFile(str(path))
    path.write_bytes(b"planted-longer")
    file.refresh(1)
    assert file.text == "planted-longer"
    link = tmp_path / "link"
    link.symlink_to(path)
    linked = SecretFile(str(link))
    other = tmp_path / "other"
    other.write_bytes(b"planted-other!")
    fresh = tmp_path / "fresh"
    fresh.symlink_to(other)
    fresh.rename(link)
    linked.refresh(1)
    assert linked.text == "planted-other!"
    assert [line["event"] for line in lines()] == ["a secret was read anew"] * 2


def test_a_touched_file_is_the_same_secret(path, lines):
    file = SecretFile(str(path))
    os.utime(path, ns=(1, 1))
    file.refresh(1)
    assert file.version == 1
    assert lines() == []


@pytest.mark.parametrize("data", [None, b"", b" \n", b"planted\nplanted", b"\xff", b"x" * 20_000])
def test_what_gets_unusable_leaves_the_last_value_and_is_logged_once(data, path, lines):
    file = SecretFile(str(path))
    if data is None:
        path.unlink()
    else:
        replace(path, data)
    for second in range(5):
        file.refresh(second)
    assert (file.text, file.version) == ("planted-1", 1)
    (line,) = lines()
    assert line["event"] == "a secret cannot be read any more, its last value holds"
    assert line["level"] == "error"
    assert (line["path"], "planted" in str(line["reason"])) == (str(path), False)
    replace(path, b"planted-1")
    file.refresh(6)
    assert [each["event"] for each in lines()][1:] == ["a secret was read anew"]
    assert file.version == 1
    path.unlink()
    file.refresh(7)
    assert len(lines()) == 3


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "it is empty"),
        (b"\r\n\t ", "it is empty"),
        (b"planted\r\nplanted: x", "several lines or control characters"),
        (b"planted\0", "several lines or control characters"),
        (b"planted\xff", "not UTF-8"),
        (b"p" * (MAX_SECRET_BYTES + 1), f"longer than {MAX_SECRET_BYTES} bytes"),
    ],
)
def test_what_is_unusable_at_first_is_refused(data, wrong, path):
    path.write_bytes(data)
    with pytest.raises(UnusableSecret) as error:
        SecretFile(str(path))
    assert wrong in error.value.wrong
    assert error.value.right
    assert "planted" not in f"{error.value!r} {error.value.__cause__} {error.value.right}"


def test_what_is_no_file_is_refused_and_waits_for_nobody(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, wrong in (
        (str(pipe), "no regular file"),
        (str(tmp_path), "no regular file"),
        (str(tmp_path / "none"), "no such file or directory"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(UnusableSecret, match=wrong):
            SecretFile(path)


def test_a_file_that_answers_slowly_is_asked_less_often(path, monkeypatch):
    file = SecretFile(str(path))
    times = iter([0.0, 0.5, 10.0, 10.001])
    monkeypatch.setattr(secrets.time, "perf_counter", lambda: next(times))
    file.refresh(100)
    replace(path, b"planted-2")
    file.refresh(109.9)
    assert file.text == "planted-1"
    file.refresh(110)
    assert file.text == "planted-2"


def test_variables(monkeypatch):
    assert read_variable("KEY", {"KEY": " planted \n"}) == "planted"
    with pytest.raises(UnusableSecret, match="the variable KEY is not set"):
        read_variable("KEY", {})
    with pytest.raises(UnusableSecret, match="the variable KEY is empty"):
        read_variable("KEY", {"KEY": " "})
    with pytest.raises(UnusableSecret) as error:
        read_variable("KEY", {"KEY": "planted\nplanted"})
    assert "planted" not in str(error.value)


def test_a_text_follows_its_files(path, tmp_path):
    second = tmp_path / "second"
    second.write_text("b")
    files = {str(each): SecretFile(str(each)) for each in (path, second)}
    text = SecretText(
        ["Bearer ", Reference("file", str(path)), "-", Reference("env", "E"), "-",
         Reference("file", str(second))],
        files,
        {"E": "e"},
    )  # fmt: skip
    assert text.get(0) == "Bearer planted-1-e-b"
    assert text.get(10) is text.get(10)
    replace(second, b"bb")
    assert text.get(20) == "Bearer planted-1-e-bb"
    replace(path, b"planted-2")
    assert text.get(30) == "Bearer planted-2-e-bb"


def test_nothing_shows_what_it_holds(path):
    file = SecretFile(str(path))
    parts = split_references(f"Bearer ${{file:{path}}} ${{env:E}}")
    text = SecretText(parts, {str(path): file}, {"E": "planted"})
    assert "planted" in text.get(0)
    assert "planted" not in repr(file) + repr(text)
