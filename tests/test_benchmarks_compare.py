"""Two runs of the benchmarks beside each other."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import __main__ as command
from benchmarks import memory
from benchmarks._compare import Written, compared, read
from benchmarks._report import Claim, Report, Row

OLD: list[Row] = [
    {"shape": "deep", "who": "ours", "n": 100.0, "x peer": ""},
    {"shape": "deep", "who": "theirs", "n": 0.0, "x peer": 2.0},
    {"shape": "gone", "who": "ours", "n": 1.0, "x peer": 1.0},
]
NEW: list[Row] = [
    {"shape": "deep", "who": "theirs", "n": 5.0, "x peer": 3.0},
    {"shape": "deep", "who": "ours", "n": 50.0, "x peer": ""},
    {"shape": "come", "who": "ours", "n": 1.0, "x peer": 1.0},
]


def lines(old: Report, new: Report) -> list[list[str]]:
    return [line.split() for line in compared([old], [new])]


def test_rows_find_each_other_by_their_texts_and_show_every_figure() -> None:
    told = lines(Report("r", OLD, machine="m"), Report("r", NEW, machine="m"))
    assert ["deep", "|", "ours", "n", "100", "50.00", "0.500"] in told
    assert ["deep", "|", "theirs", "x", "peer", "2.00", "3.00", "1.500"] in told
    assert ["deep", "|", "theirs", "n", "0.00", "5.00", "-"] in told  # nothing divides by 0
    assert ["only", "in", "the", "old", "file:", "gone", "|", "ours"] in told
    assert ["only", "in", "this", "run:", "come", "|", "ours"] in told
    assert not any("MACHINE" in line for line in told)


def test_rows_with_the_same_texts_are_matched_in_their_order() -> None:
    old: list[Row] = [{"who": "a", "n": 1.0}, {"who": "a", "n": 2.0}]
    new: list[Row] = [{"who": "a", "n": 1.0}, {"who": "a", "n": 3.0}]
    told = lines(Report("r", old), Report("r", new))
    assert told[-2:] == [
        ["a", "n", "1.00", "1.00", "1.000"],
        ["a", "(2)", "n", "2.00", "3.00", "1.500"],
    ]


def test_another_machine_is_told_and_so_is_a_benchmark_without_a_past() -> None:
    told = " ".join(compared([Report("r", [], machine="a")], [Report("r", [], machine="b")]))
    assert "ANOTHER MACHINE OR PYTHON: a / b" in told
    assert list(compared([], [Report("s", [])])) == ["s: not in the old file"]


def test_the_command_compares_and_its_exit_code_does_not_mind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(msgspec.json.encode(Written([Report("memory", OLD)])))
    assert read(path)[0].rows == OLD
    good = [Claim("c", 1.0, 2.0, at_most=True)]
    monkeypatch.setattr(memory, "run", lambda _options: Report("memory", NEW, good))
    assert command.main(["memory", "--compare", str(path)]) == 0
    assert "0.500" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "{", '{"reports": 1}'])
def test_a_file_that_cannot_be_compared_with_is_told_before_anything_runs(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert command.main(["memory", "--compare", str(path)]) == 2
    assert "cannot compare" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*command.BENCHMARKS, *command.SCRIPTS])
def test_each_benchmark_says_its_peer_its_shape_and_what_would_be_cheating(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([name, "--explain"]) == 0
    told = capsys.readouterr().out.lower()
    for word in ("peer", "shape", "cheating"):
        assert word in told, word
