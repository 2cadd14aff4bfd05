"""The open loop up to saturation and the workers: what is counted, and the picture."""

import sys
from pathlib import Path

import pytest

from benchmarks import _open_peer, latency_load, workers
from benchmarks._load_picture import Point, draw
from benchmarks._open_loop import OpenSample, OpenSpec, sample_of
from benchmarks._processes import family
from benchmarks._report import Options, Sample

PNG = b"\x89PNG\r\n\x1a\n"


def sample(**fields: float) -> OpenSample:
    given = {"calls": 10, "answered": 10, "refused": {}, "p50_us": 1.0, "p99_us": 2.0, **fields}
    return OpenSample(late_p99_us=0.0, held_back=0, cores=0.5, **given)


def spec(**fields: object) -> OpenSpec:
    given = {"calls_per_s": 100.0, "connections": 1, "begin_at_s": 0.0, "warm_s": 1.0, **fields}
    return OpenSpec("", "http://127.0.0.1:1/small", "default", seconds=2.0, seed=1, **given)


def test_achieved_is_what_came_within_the_counted_time() -> None:
    times_s = [0.5, 0.9, 1.5, 2.5, 2.9]
    load = _open_peer.Tasks(spec(), times_s)
    load.waits_s = [0.1, 0.3, 0.2, -1.0, 0.4]  # before it; in it; in it; lost; behind it
    found = sample_of(spec(), times_s, load, 0.5)
    assert found.achieved_per_s == 1.0
    assert (found.calls, found.answered) == (3, 2)
    assert found.p999_us == pytest.approx(400_000)


def test_a_point_has_the_medians_of_its_rounds() -> None:
    outcomes = [
        latency_load.Outcome(sample(p50_us=n, p999_us=10 * n, achieved_per_s=100 * n), 1.0)
        for n in (1.0, 9.0, 2.0)
    ]
    assert latency_load.point_of(500, outcomes) == Point(500, 200.0, 2.0, 2.0, 20.0)


def test_the_knee_is_the_highest_rate_that_was_kept() -> None:
    course = [
        Point(rate, achieved, 1.0, p99_us, 1.0)
        for rate, achieved, p99_us in (
            (1_000, 1_000, 5.0),
            (2_000, 1_900, 6.0),
            (3_000, 2_900, 30_000.0),
            (4_000, 3_000, 5.0),
        )
    ]
    assert latency_load._knee("runtime", course).startswith("runtime: 2,000 calls/s")
    assert latency_load._knee("runtime", course[2:]).startswith("runtime: no calls/s")


def test_the_picture_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "load.png"
    course = [Point(1_000, 1_000, 100.0, 200.0, 300.0), Point(2_000, 1_000, 1e5, 2e5, 3e5)]
    draw(str(path), {"runtime": course, "aiohttp": course[:1]}, "a machine")
    assert path.read_bytes().startswith(PNG)


def test_two_workers_can_reach_what_load_and_upstream_leave() -> None:
    one, two = (
        workers.Outcome(Sample(rate, 1.0, 1.0, cpu_us=100.0, load_cpu_us=30.0), 20.0, 0.5)
        for rate in (8_000.0, 12_000.0)
    )
    assert two.total_us == 150.0
    assert workers.possible(2, one, two) == pytest.approx(2e6 / 150 / 8_000)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_family_has_the_children_and_theirs() -> None:
    assert family(1)[0] == 1
    assert len(set(family(1))) == len(family(1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures come from /proc")
def test_latency_against_load_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_load, "RATES_PER_S", (50, 100))
    path = tmp_path / "pictures" / "load.png"
    report = latency_load.run(Options(seconds=0.5, rounds=1, output=str(path)))
    assert {row["who"] for row in report.rows} == {"runtime", "aiohttp"}
    assert path.read_bytes().startswith(PNG)
