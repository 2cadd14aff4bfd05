#!/usr/bin/env python3
"""One command for everything a developer does here, from a fresh clone on.

    test [--all] [pytest arguments]  the tests; without --all (or CI=true) only the quick ones
    check                            lint, format, types, layers, generated code, shape
    coverage                         every branch of the wire, policy and pipeline rooms
    demo [--scene NAME]              runtime, LLM simulator and the example connector
    bench [NAMES]                    the benchmarks
    wheel                            build it, and try it out in an empty environment
    format                           put the sources into their one format
    generate                         write the generated code anew
    setup                            make or mend .venv, and nothing else

Standard library only: it runs under the system's Python and makes `.venv` itself, again whenever
`pyproject.toml` changes. It writes nothing outside the clone but temporary folders.
"""

from __future__ import (
    annotations,
)  # older Pythons must get as far as the sentence that refuses them

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".dev-stamp"
OLDEST_PYTHON = (3, 11)
NO_TESTS_COLLECTED = 5
INTERRUPTED = 130
INTERRUPT_PASSED_ON_AFTER_S = 5.0
TYPED = ("vastar_client", "vastar_runtime", "tools", "benchmarks")
COVERED = (  # tests, and the room of which they must cover every branch
    ("tests/client/wire", "vastar_client/wire"),
    ("tests/runtime/policy", "vastar_runtime/policy"),
    ("tests/runtime/pipeline", "vastar_runtime/pipeline"),
)

PIP_FAILED = """
pip could not install the dependencies; its own words are above. What usually helps:
  - no network, or a proxy in between: set HTTPS_PROXY, or name your package index
    (PIP_INDEX_URL, or index-url in pip's configuration file), and run this again;
  - a package without a ready-made wheel for this Python: use Python 3.11, 3.12 or 3.13;
  - a broken environment: delete the folder .venv and run this again."""
VENV_FAILED = """
This Python cannot make a virtual environment; its own words are above. On Debian and Ubuntu install
the package python3-venv; elsewhere use a complete Python 3.11 or later."""


def say(sentence: str) -> None:
    """Print a line of our own, before whatever a child prints next."""
    print(f"[dev] {sentence}", flush=True)


def refuse_old_python(version: tuple[int, ...]) -> None:
    """Return when `version` will do.

    Raises:
        SystemExit: it is too old; the message names what would be right.
    """
    if version < OLDEST_PYTHON:
        raise SystemExit(
            f"tools/dev.py needs Python 3.11 or later, and this is {version[0]}.{version[1]} "
            f"({sys.executable}): try python3.11, python3.12 or python3.13"
        )


def stamp_text(pyproject: bytes) -> str:
    """What tells one environment from another: the project file and the interpreter."""
    return f"{hashlib.sha256(pyproject).hexdigest()} {sys.version_info[:2]} {ROOT}\n"


def run(command: list[str], **variables: str) -> int:
    """Run a command in the clone, its output straight to ours; its exit code.

    A terminal sends Ctrl-C to the child too, which gets the time to end in its own way; whoever
    interrupts this process alone has the interrupt passed on. The child never outlives this call.
    """
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables})
    patience_s: float | None = None
    try:
        while True:
            try:
                code = process.wait(patience_s)
            except KeyboardInterrupt:
                patience_s = INTERRUPT_PASSED_ON_AFTER_S
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                patience_s = None
            else:
                return code if code >= 0 else 128 - code
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def step(title: str, command: list[str], **variables: str) -> int:
    """Run one named step, saying its name before and its time after a failure."""
    say(title)
    begun = time.monotonic()
    code = run(command, **variables)
    if code:
        say(f"{title}: FAILED with {code} after {time.monotonic() - begun:.1f} s")
    return code


def ensure_environment() -> None:
    """Make `.venv`, or install anew when the project file or the interpreter changed.

    Raises:
        SystemExit: it cannot be made; the message says what to do.
    """
    wanted = stamp_text((ROOT / "pyproject.toml").read_bytes())
    if PYTHON.exists() and STAMP.is_file() and STAMP.read_text() == wanted:
        return
    if not PYTHON.exists():
        shutil.rmtree(VENV, ignore_errors=True)  # its interpreter is gone
        if step("making .venv", [sys.executable, "-m", "venv", str(VENV)]):
            shutil.rmtree(VENV, ignore_errors=True)
            raise SystemExit(VENV_FAILED)
    # Twice quiet: errors only, not a warning for each mirror without the package.
    pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    if step("installing the project and its tools into .venv", [*pip, "-e", ".[dev]"]):
        raise SystemExit(PIP_FAILED)
    # Coverage-guided fuzzing is had where there is a wheel of it: from source it needs a compiler.
    optional = extra("fuzz")
    if optional and step(
        "installing the coverage-guided fuzzer", [*pip, "--only-binary=:all:", *optional]
    ):
        say("no coverage-guided fuzzer here: its slow test is left out, its targets are tested")
    STAMP.write_text(wanted)


def extra(name: str) -> list[str]:
    """The requirements of one of the project's extras, none where there is no such."""
    import tomllib  # noqa: PLC0415 - not in the Pythons that are refused with a sentence

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")).get("project", {})
    found: list[str] = project.get("optional-dependencies", {}).get(name, [])
    return found


def python(*arguments: str) -> list[str]:
    """A command for the environment's interpreter."""
    return [str(PYTHON), *arguments]


def worst(codes: list[int]) -> int:
    """The exit code of several pytest runs: one that found no test is no failure beside others."""
    counted = [code for code in codes if code != NO_TESTS_COLLECTED] or codes
    return next((code for code in counted if code), 0)


def test(arguments: list[str]) -> int:
    """The quick tests; with `--all`, or where CI=true, the slow ones after them.

    The whole suite runs on two cores. Slow tests measure real time or start processes, and a
    choice of tests is most likely being debugged: both run one by one.
    """
    chosen = [argument for argument in arguments if argument != "--all"]
    pytest = python("-m", "pytest")
    if "-m" in chosen:
        return step("the chosen tests", [*pytest, *chosen])
    spread = [] if chosen else ["-n", "2", "--dist", "worksteal"]
    codes = [step("the quick tests", [*pytest, *spread, "-m", "not slow", *chosen])]
    if "--all" in arguments or os.environ.get("CI") == "true":
        codes.append(step("the slow tests", [*pytest, "-m", "slow", *chosen]))
    return worst(codes)


def check(_arguments: list[str]) -> int:
    """All that can be said without running the code; every step runs, whatever the others say."""
    steps = {
        "ruff check": python("-m", "ruff", "check", "."),
        "ruff format": python("-m", "ruff", "format", "--check", "."),
        "mypy --strict": python("-m", "mypy", "--strict", *TYPED),
        "layers": python("-m", "tools.check_layers"),
        "generated code": python("-m", "tools.check_generated"),
        "shape": python("-m", "tools.check_shape"),
    }
    failed = [title for title, command in steps.items() if step(title, command)]
    say(
        f"check: {len(failed)} of {len(steps)} failed: {', '.join(failed)}"
        if failed
        else "check: ok"
    )
    return 1 if failed else 0


def coverage(_arguments: list[str]) -> int:
    """Every branch of the covered rooms, by their own tests alone."""
    rooms = [(tests, room) for tests, room in COVERED if any((ROOT / tests).rglob("test_*.py"))]
    for tests, room in rooms:
        data = {
            "COVERAGE_FILE": str(VENV / f".coverage-{room.replace('/', '-')}"),
            "HYPOTHESIS_PROFILE": "coverage",  # the same examples each time: the same branches
        }
        measured = [
            "-m",
            "coverage",
            "run",
            "--branch",
            f"--source={room}",
            "-m",
            "pytest",
            "-q",
        ]
        code = step(f"tests of {room}", python(*measured, tests), **data)
        report = ["-m", "coverage", "report", "--fail-under=100"]
        code = code or step(f"every branch of {room}", python(*report), **data)
        if code:
            return code
    if len(rooms) < len(COVERED):
        say(f"coverage: only {len(rooms)} of {len(COVERED)} rooms have tests")
    return 0


def demo(arguments: list[str]) -> int:
    """Start the runtime and the simulator, run the example connector through them, stop them."""
    return step("the demo", python("-m", "tools.demo", *arguments))


def bench(arguments: list[str]) -> int:
    """Run the benchmarks, or those that are named."""
    return step("the benchmarks", python("-m", "benchmarks", *arguments))


def wheel(_arguments: list[str]) -> int:
    """Build the wheel into `dist/`, look inside, install it into an empty environment, use it."""
    return step("the wheel", python("-m", "tools.check_wheel"))


def format_sources(_arguments: list[str]) -> int:
    """Put the sources into their one format."""
    sorted_code = step("ruff check --fix", python("-m", "ruff", "check", "--fix", "--quiet", "."))
    return step("ruff format", python("-m", "ruff", "format", ".")) or sorted_code


def generate(_arguments: list[str]) -> int:
    """Write the generated code anew."""
    return step("generate", python("-m", "tools.check_generated", "--write"))


def setup(_arguments: list[str]) -> int:
    """Nothing: the environment is there when a command begins."""
    return 0


COMMANDS = {
    "test": test,
    "check": check,
    "coverage": coverage,
    "demo": demo,
    "bench": bench,
    "wheel": wheel,
    "format": format_sources,
    "generate": generate,
    "setup": setup,
}


def main(arguments: list[str]) -> int:
    """Run one command; its exit code, 2 for an unknown one."""
    refuse_old_python(sys.version_info[:2])
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__)
        return 0 if arguments else 2
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"unknown command {arguments[0]!r}: one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    ensure_environment()
    return command(arguments[1:])


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
