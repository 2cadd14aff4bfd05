"""Coverage-guided fuzzing of the parsers and codecs, with atheris (extra `fuzz`).

    python -m tools.fuzz.coverage --list
    python -m tools.fuzz.coverage all --seconds 20 --jobs 2
    python -m tools.fuzz.coverage codec --runs 1000000 --corpus DIR
    python -m tools.fuzz.coverage codec --replay FILE
    python -m tools.fuzz.coverage codec --minimise FILE
    python -m tools.fuzz.coverage codec --add FILE --says "what it is"

Each target starts from its committed corpus (`tests/fuzz_corpus/`); `--corpus DIR` keeps what is
found beside it, for the next run. A crash is made smaller and printed as a line of that corpus.
Exit codes: 0 nothing was found, 1 something was, 2 bad flags, 3 atheris is not installed.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from tools.fuzz import _corpus
from tools.fuzz._shrinking import failure_of, shrunk
from tools.fuzz.targets import TARGETS, Target

__all__ = ["Run", "has_atheris", "main", "run_target"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_ONE_INPUT_S = 60
"""libFuzzer calls an input of that long a hang. Inputs are short: none takes a hundredth of it,
on any machine."""
_STARTUP_S = 120.0
_NO_ATHERIS = 3
_STATS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_COVERED = re.compile(r"\bcov: (\d+) ft: (\d+) corp: (\d+)")
_SHOWN_CHARACTERS = 2000
_CI_SEED = 20_261_122


@attrs.frozen
class Run:
    """One run of one target.

    Attributes:
        executions: inputs that were tried.
        took_s: from the first to the last, as near as can be told.
        edges: branches that were seen; 0 where it did not say.
        kept: inputs that showed something new, those of the corpus included.
        crash: the input that failed, made smaller; None where none did.
        output: all that it printed.
    """

    target: str
    executions: int
    took_s: float
    edges: int = 0
    kept: int = 0
    crash: bytes | None = None
    output: str = attrs.field(default="", repr=False)

    @property
    def summary(self) -> str:
        """One line for people."""
        rate = self.executions / self.took_s if self.took_s else 0
        found = "" if self.crash is None else "  CRASH"
        return (
            f"{self.target:14} {self.executions:>10,} executions in {self.took_s:5.1f} s "
            f"({rate:>7,.0f}/s), {self.edges:5} branches, {self.kept:4} inputs kept{found}"
        )


def has_atheris() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("atheris") is not None


def run_target(
    target: Target,
    *,
    seed: int,
    seconds: float = 0,
    runs: int = 0,
    corpus: Path | None = None,
) -> Run:
    """Fuzz one target in a process of its own.

    Args:
        target: which.
        seed: of libFuzzer's choices.
        seconds: when to stop; 0 is never.
        runs: after how many inputs to stop; 0 is never. One of both must be given.
        corpus: where to keep what was found; a temporary folder where there is none.
    """
    with tempfile.TemporaryDirectory(prefix="vastar-fuzz-") as made:
        scratch = Path(made)
        kept = scratch / "kept" if corpus is None else corpus / target.name
        kept.mkdir(parents=True, exist_ok=True)
        seeds = scratch / "seeds"
        seeds.mkdir()
        for number, case in enumerate(_corpus.load(target.name)):
            (seeds / f"{number:04}").write_bytes(case.data)
        words = scratch / "words"
        words.write_text("".join(_dictionary(target.tokens)), "ascii")
        command = [
            *(sys.executable, "-m", "tools.fuzz._guided", target.name),
            *(f"-seed={seed}", f"-max_len={target.longest_bytes}", f"-timeout={_ONE_INPUT_S}"),
            f"-artifact_prefix={scratch}{os.sep}",
            *([f"-dict={words}"] if target.tokens else []),
            *("-print_final_stats=1", "-reload=0", "-rss_limit_mb=2048"),
            *([f"-max_total_time={max(1, round(seconds))}"] if seconds else []),
            *([f"-runs={runs}"] if runs else []),
            *(str(kept), str(seeds)),
        ]
        began_s = time.monotonic()
        done = subprocess.run(
            command,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + _ONE_INPUT_S + _STARTUP_S if seconds else None,
        )
        took_s = time.monotonic() - began_s
        return _judged(target, done.returncode, done.stdout, took_s, scratch)


def _dictionary(tokens: Sequence[bytes]) -> Iterator[str]:
    """Tokens in libFuzzer's own form."""
    for token in tokens:
        yield '"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n'


def _judged(target: Target, code: int, output: str, took_s: float, scratch: Path) -> Run:
    executed = _STATS.search(output)
    covered = _COVERED.findall(output)
    edges, _, kept = map(int, covered[-1]) if covered else (0, 0, 0)
    crash: bytes | None = None
    if code:
        found = [p for p in scratch.iterdir() if p.is_file() and p.name != "words"]
        if not found:
            raise RuntimeError(f"the fuzzer of {target.name} failed with {code}:\n{output}")
        crash = shrunk(target.load(), found[0].read_bytes())
    return Run(
        target.name,
        int(executed[1]) if executed else 0,
        took_s,
        edges,
        kept,
        crash,
        output,
    )


def _seed(given: int | None) -> int:
    """The same in CI, so that what it finds is found again; else another each time."""
    if given is not None:
        return given
    return _CI_SEED if os.environ.get("CI") == "true" else int(time.time()) % 2**31


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz.coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names, or `all`")
    parser.add_argument("--list", action="store_true", help="the targets, and what each does")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="inputs for each target")
    parser.add_argument("--seconds", type=float, default=0, metavar="S", help="for each target")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="targets at a time")
    parser.add_argument("--seed", type=int, help="fixed where CI=true")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keep what is found")
    for flag, says in (
        ("--replay", "run one input"),
        ("--minimise", "make a failing input smaller"),
        ("--add", "append it to the committed corpus, smaller if it fails"),
    ):
        parser.add_argument(flag, type=Path, metavar="FILE", help=says)
    parser.add_argument("--says", default="", metavar="WORDS", help="what the added input is")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, or look at one input; the exit code."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    if flags.list:
        for target in TARGETS.values():
            print(f"{target.name:14} {target.says}")
        return 0
    names = list(TARGETS) if flags.targets == ["all"] else flags.targets
    unknown = [name for name in names if name not in TARGETS]
    if not names or unknown:
        parser.error(f"which target? {unknown or ''} known are all, {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in names]
    path = flags.replay or flags.minimise or flags.add
    if path is not None:
        if len(chosen) > 1:
            parser.error("one input is for one target")
        if flags.add and not flags.says:
            parser.error("--add wants --says: what is it?")
        return _look_at(chosen[0], path.read_bytes(), flags)
    if not has_atheris():
        print(
            "atheris is not installed: python -m pip install -e '.[fuzz]' (Linux on x86-64). "
            "Without it, `pytest tests/tools/test_fuzz_targets.py` runs the same targets.",
            file=sys.stderr,
        )
        return _NO_ATHERIS
    if not flags.runs and not flags.seconds:
        flags.seconds = 60.0
    return _fuzz(chosen, flags)


def _look_at(target: Target, data: bytes, flags: argparse.Namespace) -> int:
    """Replay, minimise or add one input."""
    check = target.load()
    if flags.replay:
        check(data)  # its traceback is the answer
        print(f"{target.name}: nothing is wrong with {_corpus.escaped(data)}")
        return 0
    data = shrunk(check, data)
    if flags.add:
        case = _corpus.Case(flags.says, data)
        new = _corpus.append(target.name, target.says, [case])
        print(f"{'added' if new else 'known'}: {_corpus.escaped(data)}")
    failure = failure_of(check, data)
    if failure is None:
        return 0
    print(f"{_corpus.escaped(data)}\n{failure.kind} in {failure.place}: {failure.words}")
    return 1


def _fuzz(chosen: Sequence[Target], flags: argparse.Namespace) -> int:
    seed = _seed(flags.seed)
    print(f"seed {seed}", flush=True)

    def one(target: Target) -> Run:
        run = run_target(
            target, seed=seed, seconds=flags.seconds, runs=flags.runs, corpus=flags.corpus
        )
        print(run.summary, flush=True)
        return run

    with ThreadPoolExecutor(max(1, flags.jobs)) as pool:
        done = list(pool.map(one, chosen))
    for run in done:
        if run.crash is not None:
            failure = failure_of(TARGETS[run.target].load(), run.crash)
            words = run.output[-_SHOWN_CHARACTERS:] if failure is None else failure.words
            print(f"\n{run.target}: {_corpus.escaped(run.crash)}\n{words}")
    print(f"{sum(run.executions for run in done):,} executions in all")
    return 1 if any(run.crash is not None for run in done) else 0


if __name__ == "__main__":
    sys.exit(main())
