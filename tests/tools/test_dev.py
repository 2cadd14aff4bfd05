"""The developer's command: what it refuses, what it returns, and that nothing outlives it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tools import demo, dev


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for a fresh clone; commands of it are written down, not run."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(dev, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(dev, "STAMP", tmp_path / ".venv" / ".dev-stamp")
    return tmp_path


class Runs:
    """Stands for `dev.run`: notes each command and answers with the codes it was given."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **variables: str) -> int:
        self.commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            dev.PYTHON.parent.mkdir(parents=True)
            dev.PYTHON.touch()
        return self.codes.pop(0) if self.codes else 0


def test_an_old_python_is_refused_with_a_sentence() -> None:
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or later, and this is 3\.10"):
        dev.refuse_old_python((3, 10))
    dev.refuse_old_python((3, 11))


def test_the_environment_is_made_once_and_again_when_the_project_changes(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(dev, "run", runs)
    dev.ensure_environment()
    assert [command[1:4] for command in runs.commands] == [
        ["-m", "venv", str(dev.VENV)],
        ["-m", "pip", "install"],
    ]
    dev.ensure_environment()
    assert len(runs.commands) == 2
    (clone / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    dev.ensure_environment()
    assert len(runs.commands) == 3


@pytest.mark.parametrize(("code", "is_missed"), [(0, False), (1, True)])
def test_where_there_is_no_wheel_of_the_fuzzer_the_rest_is_there_all_the_same(
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    is_missed: bool,
) -> None:
    extras = "[project]\n[project.optional-dependencies]\nfuzz = ['atheris>=3']\n"
    (clone / "pyproject.toml").write_text(extras)
    runs = Runs(0, 0, code)
    monkeypatch.setattr(dev, "run", runs)
    dev.ensure_environment()
    assert runs.commands[-1][-2:] == ["--only-binary=:all:", "atheris>=3"]
    assert ("its slow test is left out" in capsys.readouterr().out) is is_missed
    dev.ensure_environment()
    assert len(runs.commands) == 3


@pytest.mark.parametrize(("codes", "advice"), [((1,), "python3-venv"), ((0, 1), "PIP_INDEX_URL")])
def test_a_failed_setup_says_what_to_do_and_is_tried_again(
    clone: Path, monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...], advice: str
) -> None:
    monkeypatch.setattr(dev, "run", Runs(*codes))
    with pytest.raises(SystemExit, match=advice):
        dev.ensure_environment()
    again = Runs()
    monkeypatch.setattr(dev, "run", again)
    dev.ensure_environment()
    assert again.commands


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0], 0),
        ([1, 0], 1),
        ([0, 2], 2),
        ([0, 5], 0),
        ([5, 0], 0),
        ([5, 1], 1),
        ([5, 5], 5),
        ([5], 5),
    ],
)
def test_the_exit_code_of_several_runs(codes: list[int], code: int) -> None:
    assert dev.worst(codes) == code


@pytest.mark.parametrize(
    ("arguments", "ci", "markers"),
    [
        ([], "", ["not slow"]),
        (["--all"], "", ["not slow", "slow"]),
        ([], "true", ["not slow", "slow"]),
        (["-k", "x"], "", ["not slow"]),
        (["-m", "slow"], "true", ["slow"]),
    ],
)
def test_which_tests_run(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], ci: str, markers: list[str]
) -> None:
    runs = Runs()
    monkeypatch.setattr(dev, "run", runs)
    monkeypatch.setenv("CI", ci)
    assert dev.test(arguments) == 0
    assert [command[command.index("-m", 3) + 1] for command in runs.commands] == markers
    assert all("--all" not in command for command in runs.commands)


def test_check_runs_every_step_and_fails_when_one_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(0, 1)
    monkeypatch.setattr(dev, "run", runs)
    assert dev.check([]) == 1
    assert len(runs.commands) == 6
    assert "1 of 6 failed: ruff format" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["nonsense"], 2)])
def test_help_and_unknown_commands(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dev.main(arguments) == code
    text = "".join(capsys.readouterr())
    assert all(name in text for name in dev.COMMANDS)


@pytest.mark.parametrize(("source", "code"), [("raise SystemExit(7)", 7), ("os.kill(0, 9)", 137)])
def test_exit_codes_and_signals_come_through(source: str, code: int) -> None:
    source = source.replace("os.kill(0", "os.kill(os.getpid()")
    assert dev.run([sys.executable, "-S", "-c", f"import os; {source}"]) == code


# The children of the demo, in miniature: each waits to be stopped and writes down its end.
CHILD = """
import os, signal, socket, sys, time
name, ready, code = sys.argv[1:4]
def end(*_):
    print(name, "ended", flush=True)
    sys.exit(int(code))
signal.signal(signal.SIGTERM, end)
print(ready, flush=True)
signal.pause()
"""


def _child(folder: Path, name: str, ready: str = "ready", code: int = 0) -> list[str]:
    script = folder / "child.py"
    script.write_text(CHILD)
    return ["-S", str(script), name, ready, str(code)]


def test_a_child_is_waited_for_and_stopped(tmp_path: Path) -> None:
    with demo._started("one", _child(tmp_path, "one"), tmp_path) as child:
        child.wait_until(lambda: "ready" in child.output())
        assert child.process.poll() is None
    assert child.process.returncode == 0
    assert child.output() == "ready\none ended\n"


def test_a_child_that_ends_badly_fails_the_demo(tmp_path: Path) -> None:
    with (
        pytest.raises(demo.DemoError, match=r"one did not stop cleanly \(3\)(.|\n)*one ended"),
        demo._started("one", _child(tmp_path, "one", code=3), tmp_path) as child,
    ):
        child.wait_until(lambda: "ready" in child.output())


def test_a_child_that_dies_early_shows_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(demo.DemoError, match="one ended with 1:\n    no such luck"),
        demo._started("one", ["-S", "-c", "raise SystemExit('no such luck')"], tmp_path) as child,
    ):
        child.wait_until(lambda: False)
    assert child.process.returncode == 1


def test_a_child_is_stopped_when_the_block_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        demo._started("one", _child(tmp_path, "one"), tmp_path) as child,
    ):
        child.wait_until(lambda: "ready" in child.output())
        raise KeyboardInterrupt
    assert child.process.returncode == 0


def test_a_child_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "STOP_WITHIN_S", 0.05)
    deaf = "import signal as s; s.signal(15, s.SIG_IGN); print(1, flush=True); s.pause()"
    with (
        pytest.raises(demo.DemoError, match=r"did not stop cleanly \(-9\)"),
        demo._started("deaf", ["-S", "-c", deaf], tmp_path) as child,
    ):
        child.wait_until(lambda: "1" in child.output())


def test_the_demo_s_children_know_nothing_of_the_caller_s_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("VASTAR_SOCKET_PATH", "OPENAI_API_KEY", "https_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LANG", "C")
    names = set(demo._environment())
    assert not names & {"VASTAR_SOCKET_PATH", "OPENAI_API_KEY", "https_proxy", "HTTP_PROXY"}
    assert "LANG" in names


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_an_interrupted_demo(tmp_path: Path, number: signal.Signals) -> None:
    """Only the demo is signalled; its three children are sessions of their own."""
    pids = tmp_path / "pids"
    script = tmp_path / "interrupted.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(demo.ROOT)!r})
            from pathlib import Path
            from tools import demo
            def run(scene, folder):
                child = {_child(tmp_path, "x")!r}
                start = demo._started
                with start("one", child, folder) as a, start("two", child, folder) as b:
                    a.wait_until(lambda: "ready" in a.output())
                    b.wait_until(lambda: "ready" in b.output())
                    Path({str(pids)!r} + ".new").write_text(f"{{a.process.pid}} {{b.process.pid}}")
                    Path({str(pids)!r} + ".new").rename({str(pids)!r})
                    a.process.wait()
            demo.run_demo = run
            sys.exit(demo.main([]))
            """
        )
    )
    with subprocess.Popen(
        [sys.executable, "-S", str(script)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            ends_at = time.monotonic() + 60
            while not pids.exists() and time.monotonic() < ends_at:
                time.sleep(0.005)
            assert pids.exists(), "a machine this busy tells nothing"
            process.send_signal(number)
            assert process.wait(60) == 128 + number
        finally:
            process.kill()  # else leaving the block would wait for ever
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
