"""The simulation: one seed is one run, everywhere; every invariant holds; failures come again."""

import gc
import os
import random
import subprocess
import sys

import pytest
from trio._core import _run

from tests.support.planted_bugs import BUGS
from tools.simulate import simulate
from tools.simulate._cli import main
from tools.simulate._setup import FEATURES, draw_setup
from vastar_runtime import assembly

STEPS = 100
SLOW_SEEDS = 200
CHUNK = 25


@pytest.mark.parametrize("seed", range(4))
def test_the_invariants_hold(seed: int) -> None:
    report = simulate(seed, STEPS)
    assert report.broken is None, report.broken
    assert report.calls
    assert report.attempts


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1000 + SLOW_SEEDS, CHUNK))
def test_the_invariants_hold_for_many_seeds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        report = simulate(seed, STEPS)
        assert report.broken is None, f"seed {seed}, steps {report.broken.step}: {report.broken}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5000, 5003))
def test_the_invariants_hold_for_long(seed: int) -> None:
    report = simulate(seed, 1000)
    assert report.broken is None, f"seed {seed}, steps {report.broken.step}: {report.broken}"


def test_one_seed_is_one_run() -> None:
    first, other, again = simulate(7, 40), simulate(8, 40), simulate(7, 40)
    assert first.lines == again.lines
    assert first.digest == again.digest != other.digest


def test_fewer_steps_are_the_beginning_of_more() -> None:
    short, long = simulate(9, 20).lines, simulate(9, 40).lines
    end = next(n for n, line in enumerate(short) if line.split(" ")[1] in {"waiting", "drain"})
    assert short[:end] == long[:end]


def test_two_processes_with_one_seed_have_one_hash() -> None:
    """Whatever seed Python hashes texts with, and however many runs came before in a process."""
    digests = []
    for hash_seed, program in (
        ("1", "from tools.simulate import simulate; print(simulate(11, 60).digest)"),
        (
            "2",
            "from tools.simulate import simulate; simulate(3, 20); print(simulate(11, 60).digest)",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(done.stdout.strip())
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_the_runs_reach_every_part_of_the_configuration() -> None:
    setups = [draw_setup(seed) for seed in range(60)]
    assert {name for setup in setups for name in setup.features} == set(FEATURES)
    assert {len(setup.tenants) for setup in setups} == {1, 2, 3, 4}
    assert any(not setup.features for setup in setups)


def test_the_command_tells_of_each_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "5", "--seeds", "2", "--steps", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["seed 5: ok", "seed 6: ok"]


def test_the_trace_is_the_event_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "5", "--steps", "10", "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert tuple(lines[:-1]) == simulate(5, 10).lines


def test_a_failure_says_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    BUGS["times are made up"].plant(monkeypatch)
    assert main(["--seed", "0", "--steps", "100"]) == 1
    out, err = capsys.readouterr()
    assert "seed 0: BROKEN" in out
    assert "this did not hold: times add up" in err
    command = err.strip().splitlines()[-1].partition("python -m tools.simulate ")[2].split(" ")
    assert main(command) == 1
    again = capsys.readouterr()
    assert "this did not hold: times add up" in again.err
    assert again.err.count("\n") < err.count("\n")  # the events were shown as they happened


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--seeds", "none"], ["--what"]])
def test_bad_flags_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_run_leaves_the_process_as_it_was() -> None:
    state = _run._r.getstate(), random.getstate()
    before = dict(vars(assembly)), _run._ALLOW_DETERMINISTIC_SCHEDULING
    simulate(1, 5)
    assert (_run._r.getstate(), random.getstate()) == state
    assert (vars(assembly), _run._ALLOW_DETERMINISTIC_SCHEDULING) == before
    assert gc.isenabled()
