"""The coverage-guided fuzzer: its corpus, its command, and a bounded run of every target."""

import itertools
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.fuzz import _corpus, coverage
from tools.fuzz._corpus import Case
from tools.fuzz._shrinking import failure_of, shrunk
from tools.fuzz.coverage import Run, has_atheris, main, run_target
from tools.fuzz.targets import TARGETS, Target
from tools.fuzz.targets._http import read_by_us
from tools.fuzz.targets._inputs import cut
from vastar_client.wire.sse import SSEDecoder

SECONDS_EACH = 30
LEAST_EXECUTIONS = 500
"""Of one target. The slowest does a hundred times as much on a machine that is busy otherwise."""

HAS_WHEEL = (
    sys.platform == "linux"
    and platform.machine() == "x86_64"
    and platform.python_implementation() == "CPython"
    and platform.libc_ver()[0] == "glibc"
    and sys.version_info < (3, 15)
)


@given(st.binary(max_size=50))
def test_a_line_of_the_corpus_is_its_bytes(data):
    line = _corpus.escaped(data)
    assert line.isascii()
    assert line == line.strip()
    assert not line.startswith("#")
    assert _corpus.unescaped(line) == data


def test_cases_are_appended_once(tmp_path):
    cases = [Case("nothing", b""), Case("two\nlines", b"#\xff\n"), Case("again", b"")]
    assert _corpus.append("sse", "events", cases, tmp_path) == 2
    assert _corpus.append("sse", "events", cases[:1], tmp_path) == 0
    assert _corpus.load("sse", tmp_path) == [Case("nothing", b""), Case("two lines", b"#\xff\n")]
    assert (tmp_path / "sse.txt").read_text().startswith("## sse: events\n")
    assert _corpus.load("none", tmp_path) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [("abc\n", "without words"), ("# a\n# b\nx\n", "no bytes"), ("# a\n", "no bytes")],
)
def test_a_corpus_that_is_none_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        _corpus.parsed(text)


def fails_on(data):
    if b"<" in data and b">" in data:
        raise ValueError("both")
    return not data.startswith(b"x") or 1 / 0


def test_a_failing_input_is_made_smaller_while_it_fails_alike():
    assert shrunk(fails_on, b"xab<cd>ef<>") == b"<>"
    assert shrunk(fails_on, b"xab") == b"x"
    assert shrunk(fails_on, b"abc") == b"abc"
    failure = failure_of(fails_on, b"<>")
    assert (failure.kind, failure.words) == ("ValueError", "both")
    assert shrunk(fails_on, b"xab<cd>ef<>", most_tries=1) != b"<>"


def test_the_targets_are_listed(capsys):
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*TARGETS]


@pytest.mark.parametrize(
    "flags",
    [[], ["nothing"], ["all", "--replay", "x"], ["sse", "--add", "x"], ["sse", "--runs", "x"]],
)
def test_bad_flags_are_refused(flags):
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2


def test_without_atheris_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(coverage, "has_atheris", lambda: False)
    assert main(["sse"]) == 3
    assert "atheris is not installed" in capsys.readouterr().err


def test_one_input_is_replayed_made_smaller_and_added(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_corpus.append, "__defaults__", (tmp_path,))
    monkeypatch.setattr(_corpus.load, "__defaults__", (tmp_path,))
    path = tmp_path / "input"
    path.write_bytes(b"\0\0data: a\n\n")
    assert main(["sse", "--replay", str(path)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    monkeypatch.setattr(SSEDecoder, "finish", lambda _self: 1 / 0)
    assert main(["sse", "--minimise", str(path)]) == 1
    assert "ZeroDivisionError in <lambda>" in capsys.readouterr().out
    assert main(["sse", "--add", str(path), "--says", "any"]) == 1
    assert _corpus.load("sse", tmp_path) == [Case("any", b"")]


def test_what_was_found_is_said_with_the_input_that_shows_it(monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    runs = {"sse": b"\0\0bad", "codec": None}

    def run(target: Target, *, seed, seconds, runs: int, corpus, found=runs) -> Run:
        assert (seconds, runs, corpus) == (0, 7, None)
        return Run(target.name, 10, 2.0, seed % 7, 3, found[target.name], "its output")

    monkeypatch.setattr(coverage, "has_atheris", lambda: True)
    monkeypatch.setattr(coverage, "run_target", run)
    assert main(["sse", "codec", "--runs", "7", "--jobs", "2"]) == 1
    out = capsys.readouterr().out
    assert "seed 20261122\n" in out
    assert "10 executions in   2.0 s (      5/s)" in out
    assert "\nsse: \\x00\\x00bad\nits output\n" in out
    assert out.endswith("20 executions in all\n")
    assert main(["codec", "--runs", "7"]) == 0


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GROWING = {
    "a response of many chunks": lambda n: [CHUNKED + b"1\r\nx\r\n" * n + b"0\r\n\r\n"],
    "many chunks, byte for byte": lambda n: cut(CHUNKED + b"1\r\nx\r\n" * n, None),
    "a long body, byte for byte": lambda n: cut(HEAD + b"\r\n" + b"x" * n, None),
    "many headers": lambda n: [HEAD + b"a: b\r\n" * (n // 2) + b"\r\n"],
    "many headers, byte for byte": lambda n: cut(HEAD + b"a: b\r\n" * (n // 2) + b"\r\n", None),
    "a long reason, byte for byte": lambda n: cut(b"HTTP/1.1 200 " + b"x" * n, None),
    "many interim responses": lambda n: [b"HTTP/1.1 103 X\r\n\r\n" * (n // 8) + HEAD + b"\r\n"],
    "empty lines": lambda n: [b"\r\n" * n],
}


@pytest.mark.parametrize("grown", GROWING.values(), ids=GROWING)
def test_time_grows_as_the_response_does(grown):
    """Sixteen times the bytes take far less than the 256 times that a square would be."""

    def took_s(count):
        pieces = grown(count)
        times = []
        for _ in range(3):
            began_s = time.process_time()
            read_by_us(b"GET", pieces, 1 << 20)
            times.append(time.process_time() - began_s)
        return min(times)

    assert took_s(32_000) < 100 * max(took_s(2_000), 1e-4)


PAIRS = [*itertools.zip_longest(*[iter(TARGETS)] * 2)]


@pytest.fixture(scope="module")
def seed() -> int:
    return coverage._seed(None)


@pytest.fixture(scope="module")
def executions() -> list[int]:
    return []


@pytest.mark.slow
@pytest.mark.parametrize("names", PAIRS, ids=lambda pair: "-".join(filter(None, pair)))
def test_guided_by_coverage_nothing_is_found(names, seed, executions, capsys):
    """Time bounds it, two at a time: what a machine does meanwhile is printed, not asserted."""
    if not has_atheris():
        assert not (HAS_WHEEL and os.environ.get("CI") == "true"), "dev.py setup installs atheris"
        pytest.skip(
            "no atheris here (the extra `fuzz`): test_fuzz_targets.py runs the same targets"
        )

    def one(name: str) -> Run:
        return run_target(TARGETS[name], seed=seed, seconds=SECONDS_EACH)

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(one, filter(None, names)))
    executions += [run.executions for run in runs]
    with capsys.disabled():
        lines = [f"seed {seed}", *(run.summary for run in runs)]
        sys.stdout.write("\n".join(["", *lines, f"{sum(executions):,} executions so far", ""]))
    for run in runs:
        assert run.crash is None, (run.target, _corpus.escaped(run.crash), run.output[-3000:])
        assert run.executions >= LEAST_EXECUTIONS, run
        assert run.edges > 0, run


PLANTED = """
def check(data):
    if data[:1] == b"f":
        if data[1:2] == b"u":
            if data[2:3] == b"z":
                if data[3:4] == b"z":
                    raise ValueError("found")
"""
INSTALLED = """
from tools.fuzz.targets import TARGETS, Target
import importlib
class Planted(Target):
    def load(self):
        return importlib.import_module("planted").check
TARGETS["sse"] = Planted("sse", "", ("planted",))
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_atheris(), reason="no atheris here (the extra `fuzz`)")
def test_coverage_guides_it_to_a_planted_crash(tmp_path, monkeypatch):
    """Four bytes, one behind another: blind, it would take four thousand million inputs."""
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "sitecustomize.py").write_text(INSTALLED)
    root = Path(coverage.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    exec(INSTALLED.replace("TARGETS[", "made["), names | {"made": names})
    run = run_target(names["sse"], seed=1, seconds=100)
    assert run.crash == b"fuzz", run
    assert 0 < run.executions < 2**24
