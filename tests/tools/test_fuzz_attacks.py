"""The fuzzer over real sockets: ours holds, a liar is found, and what is found is small."""

import contextlib
import re

import pytest

from tests.support.commands import serving
from tests.support.published import published
from tools.fuzz._cli import main
from tools.fuzz._steps import load
from vastar_client.wire import ErrorClass

PATIENT = ("--patience-s", "20")


def attacked(target, *flags, examples=30):
    return main(["--socket", str(target), "--examples", str(examples), *PATIENT, *flags])


def twice(answer):
    """Each refusal comes twice."""
    return [answer] * (1 + (answer.error_class is ErrorClass.INVALID_REQUEST))


def test_a_failure_is_small_and_can_be_replayed(tmp_path, capsys):
    path, kept = tmp_path / "p.sock", tmp_path / "f.json"
    flags = ["--base", "--profile", "wire", "--out", str(kept), "--shrink-s", "30"]
    with published(path, twice):
        assert attacked(path, *flags, examples=100) == 1
        told = capsys.readouterr()
        assert "BROKEN: profile wire, seed 0" in told.out
        assert "this did not hold: one final frame" in told.err
        recording = load(kept)
        assert recording.sent_bytes < 400
        assert [step.kind for step in recording.steps] == ["open", "send"]
        assert re.search(r"\n  send \d+ [0-9a-f]+\n", told.err)
        assert main(["--socket", str(path), "--replay", str(kept)]) == 1
        assert "BROKEN: one final frame" in capsys.readouterr().out
    with published(tmp_path / "sound.sock"):
        assert main(["--socket", str(tmp_path / "sound.sock"), "--replay", str(kept)]) == 0


@pytest.mark.parametrize("profile", ["wire", "http"])
def test_who_speaks_the_published_protocol_alone_is_not_accused(tmp_path, capsys, profile):
    with published(tmp_path / "p.sock"):
        code = attacked(tmp_path / "p.sock", "--base", "--profile", profile)
    assert code == 0, capsys.readouterr().err


@contextlib.contextmanager
def runtime(folder, *flags):
    path = f"{folder}/s.sock"
    with serving("--socket", path, "--log-level", "error", *flags) as process:
        yield path, process.ready


@pytest.mark.slow
@pytest.mark.cap_s(180)
@pytest.mark.parametrize("profile", ["wire", "http", "stream", "all"])
def test_our_runtime_holds_every_rule(tmp_path, capsys, profile):
    with runtime(tmp_path) as (path, _):
        flags = ["--profile", profile, "--out", f"{tmp_path}/f.json"]
        code = attacked(path, *flags, examples=120)
    assert code == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.cap_s(180)
def test_our_runtime_holds_every_rule_over_tcp_and_in_workers(tmp_path, capsys):
    out = ("--out", f"{tmp_path}/f.json")
    with runtime(tmp_path, "--tcp", "127.0.0.1:0") as (_, ready):
        address = re.search(r"127\.0\.0\.1:\d+", ready).group()
        assert attacked(address, *out, examples=60) == 0, capsys.readouterr().err
        assert attacked(address, "--base", *out) == 0, capsys.readouterr().err
    (tmp_path / "w").mkdir()
    with runtime(tmp_path / "w", "--workers", "2") as (path, _):
        assert attacked(path, *out, "--workers", examples=60) == 0, capsys.readouterr().err
