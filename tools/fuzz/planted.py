"""Bugs planted on purpose: does the fuzzer, by itself, find each of them?

Each `tests/planted/*.patch` is one mutation of the runtime, the smallest that breaks one promise.
Its first lines say which profile is to find it and what is wrong. The packages are copied, the
patch is applied to the copy, the copy serves, and the fuzzer attacks it as it would any runtime:
nothing is known to it of the patch. A patch that no longer applies is an error, not a bug that was
not found: write it anew against the code of today.

How long it looks is counted in examples, not in seconds: what a seed finds it finds on a slow
machine too.

    python -m tools.fuzz.planted [--only NAME] [--examples N] [--seed N]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tools.fuzz._running import Report, Wanted, attack
from tools.fuzz._upstream import Upstream
from tools.fuzz._world import World

__all__ = ["PATCHES", "Planted", "PlantedError", "find", "main", "planted_bugs", "serving_copy"]

ROOT: Final = Path(__file__).resolve().parents[2]
PATCHES: Final = ROOT / "tests" / "planted"
_PACKAGES: Final = ("vastar_client", "vastar_runtime")
_END_S: Final = 10.0


class PlantedError(Exception):
    """A patch does not apply, or the copy does not serve."""


@attrs.frozen
class Planted:
    """One bug.

    Attributes:
        name: of the patch.
        profile: that is to find it.
        what: is wrong, in words.
        path: of the patch.
    """

    name: str
    profile: str
    what: str
    path: Path


def planted_bugs(folder: Path = PATCHES) -> list[Planted]:
    """All of them, by name.

    Raises:
        PlantedError: one does not say its profile and what is wrong.
    """
    bugs = []
    for path in sorted(folder.glob("*.patch")):
        lines = path.read_text().splitlines()[:2]
        said = dict(line.split(": ", 1) for line in lines if ": " in line)
        if said.keys() != {"profile", "what"}:
            raise PlantedError(f"{path.name} does not begin with `profile: ` and `what: `")
        bugs.append(Planted(path.stem, said["profile"], said["what"], path))
    return bugs


def _copy(to: Path, patch: Path | None) -> None:
    """The packages, with `patch` applied."""
    for package in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, to / package, ignore=ignored)
    if patch is None:
        return
    done = subprocess.run(
        ["git", "apply", "--verbose", str(patch)],  # noqa: S607 - the developer's own git
        cwd=to,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(to.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    # Outside of a repository git skips what it cannot place, and says so only in words.
    if done.returncode or "Applied patch" not in done.stderr:
        raise PlantedError(f"{patch.name} no longer applies:\n{done.stderr}")


@contextmanager
def serving_copy(patch: Path | None = None) -> Iterator[str]:
    """The socket of a runtime that runs from a copy, with `patch` applied to it.

    Raises:
        PlantedError: the patch does not apply, or the copy does not serve.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as made:
        folder = Path(made).resolve()
        _copy(folder, patch)
        path = str(folder / "s.sock")
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("VASTAR_", "NOTIFY_"))}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vastar_runtime", "serve", "--socket", path],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(folder), "NO_PROXY": "*"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            if "ready on" not in process.stdout.readline():
                raise PlantedError("the copy does not serve")
            yield path
        finally:
            process.kill()
            process.communicate(timeout=_END_S)


def find(bug: Planted | None, *, examples: int, seed: int = 0, shrink_s: float = 10.0) -> Report:
    """Attack a copy with `bug` in it, or a sound one, with so many examples at most."""
    with serving_copy(bug.path if bug else None) as path, Upstream() as upstream:
        world = World(path, upstream, patience_s=5.0 if bug else 20.0)
        profile = bug.profile if bug else "all"
        wanted = Wanted(profile, examples, seed=seed, shrink_s=shrink_s)
        report = attack(world, wanted)
        world.close()
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Find each bug; 0 when none was missed, and the sound copy was left in peace."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz.planted", description=__doc__)
    parser.add_argument("--only", default="", help="patches whose names hold this")
    parser.add_argument("--examples", type=int, default=2000, help="for each at most (2000)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (0)")
    flags = parser.parse_args(arguments)
    bugs = [bug for bug in planted_bugs() if flags.only in bug.name]
    missed = 0
    print(f"{'bug':26} {'profile':7} {'caught in':>9} {'examples':>8} {'bytes':>6}  by the rule")
    for bug in bugs:
        try:
            report = find(bug, examples=flags.examples, seed=flags.seed)
        except PlantedError as error:
            missed += 1
            print(f"{bug.name:26} {error}", flush=True)
            continue
        missed += report.recording is None
        print(_row(bug.name, report), flush=True)
    sound = find(None, examples=min(flags.examples, 200), seed=flags.seed)
    print(_row("(none)", sound))
    print(f"{len(bugs) - missed} of {len(bugs)} caught")
    return 1 if missed or sound.seen_again else 0


def _row(name: str, report: Report) -> str:
    recording = report.recording
    took = "-" if recording is None else f"{report.took_s:.1f} s"
    size = "-" if recording is None else str(recording.sent_bytes)
    rule = "nothing found" if recording is None else recording.rule
    return f"{name:26} {report.profile:7} {took:>9} {report.examples:>8} {size:>6}  {rule}"


if __name__ == "__main__":
    sys.exit(main())
