"""Tokens of a file: what is good, what makes a file unusable, and that nothing of it is told."""

import os
from pathlib import Path

import pytest

from vastar_runtime.token_file import TokenFile, TokenFileError, token_hash

TOKEN = "planted-token-0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# of the builders\n\n{TOKEN}\nanother-token-of-acme\r\n")
    file.chmod(0o600)
    return file


def test_each_line_is_a_token_and_nothing_else_is(path: Path) -> None:
    file = TokenFile(str(path))
    assert not file.has(token_hash(TOKEN))
    assert file.refresh()
    assert file.has(token_hash(TOKEN))
    assert file.has(token_hash("another-token-of-acme"))
    for wrong in (TOKEN[:-1], TOKEN + "x", "# of the builders", "", "\ud800"):
        assert not file.has(token_hash(wrong))
    assert TOKEN not in repr(file)


def test_it_is_read_again_when_it_is_another(path: Path) -> None:
    file = TokenFile(str(path))
    file.refresh()
    assert not file.refresh()
    path.write_text("a-token-that-is-new\n")
    assert file.refresh()
    assert file.has(token_hash("a-token-that-is-new"))
    assert not file.has(token_hash(TOKEN))


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o666])
def test_a_file_that_others_may_read_or_change_is_refused(path: Path, mode: int) -> None:
    file = TokenFile(str(path))
    file.refresh()
    path.chmod(mode)
    with pytest.raises(TokenFileError, match="by others"):
        file.refresh()
    assert not file.has(token_hash(TOKEN)), "a file that is refused admits nobody"
    path.chmod(0o640)
    assert file.refresh()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short\n", "line 1 has 5 characters"),
        (b"x" * 5000, "line 1 has 5000 characters"),
        (b"two words are no token\n", "line 1 has characters"),
        ("schlüssel-0123456789".encode(), "line 1 has characters"),
        (b"# x\n" * 1_100_000, "more than 4194304 bytes"),
    ],
)
def test_what_is_no_list_of_tokens_is_refused_without_quoting_it(
    path: Path, content: bytes, message: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(TokenFileError, match=message) as caught:
        TokenFile(str(path)).refresh()
    assert "words" not in str(caught.value)


def test_other_things_than_files_of_ours_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TokenFileError, match="no such file"):
        TokenFile(str(path / "missing" / "x").replace("tokens/", "")).refresh()
    with pytest.raises(TokenFileError, match=r"directory|plain"):
        TokenFile(str(path.parent)).refresh()
    with pytest.raises(TokenFileError, match="no plain file"):
        TokenFile(os.devnull).refresh()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    if path.stat().st_uid:
        with pytest.raises(TokenFileError, match="belongs to uid"):
            TokenFile(str(path)).refresh()
