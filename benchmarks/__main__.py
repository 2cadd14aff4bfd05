"""`python -m benchmarks [NAME ...] [--ci] [--json FILE] [--compare FILE] ...`.

Without a name it lists them, `all` runs all, and `--explain` prints of those named what they say of
themselves: peer, load shape, how to read the figures, and what would be cheating.

Two kinds: those of this room, which give a report, and older scripts, which print one themselves
and are run as they are, with those of the options that they know.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import attrs
import msgspec

from benchmarks._compare import Written, compared, read
from benchmarks._processes import ROOT
from benchmarks._report import Options, Report

__all__ = ["BENCHMARKS", "SCRIPTS", "main"]

BENCHMARKS: Final = (
    "closed_loop",
    "latency_load",
    "workers",
    "ci_guard",
    "stage_budget",
    "flame",
    "one_deep",
    "connection_reuse",
    "pipelining",
    "memory",
    "start",
    "streaming",
    "large_download",
    "blocking_client",
    "databases",
    "noisy_neighbour",
    "outage",
    "pipeline_cost",
    "shared_policies_cost",
    "metrics_cost",
    "guard_cost",
)
"""Modules with a `SUMMARY` and a `run(Options) -> Report`, and maybe `OPTIONS` of their own."""
IN_CI: Final = ("ci_guard",)
"""What `--ci` adds: short, and with no claim that a busy or slow machine can break."""
_FAR_TOO_MUCH: Final = 1_000_000


@attrs.frozen
class Script:
    """A module that is a program; `options` are those of ours that it takes."""

    summary: str
    options: tuple[str, ...] = ()


SCRIPTS: Final = {
    "codec_cost": Script("us a message: our codec beside the generated code", ("rounds",)),
    "transport_cost": Script("CPU us of the HTTP transport a request, at 1, 16, 128 at once"),
    "simulator_capacity": Script("events/s that the LLM simulator gives", ("seconds",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """List the benchmarks, or run some; 1 when a claim did not hold or a script failed."""
    options = _parser().parse_args(arguments)
    if options.ci:
        options.names = [*options.names, *IN_CI]
    if not options.names:
        _list()
        return 0
    known = (*BENCHMARKS, *SCRIPTS)
    names = known if "all" in options.names else tuple(dict.fromkeys(options.names))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: one of {', '.join(known)}, or all", file=sys.stderr)
        return 2
    if options.output is not None and len(names) > 1:
        print("--output is for one benchmark: each draws a picture of its own", file=sys.stderr)
        return 2
    if options.explain:
        for name in names:
            print(f"== {name}\n{(import_module(f'benchmarks.{name}').__doc__ or '').strip()}\n")
        return 0
    try:
        old = [] if options.compare is None else read(options.compare)
    except (OSError, msgspec.DecodeError) as error:
        print(f"cannot compare with {options.compare}: {error}", file=sys.stderr)
        return 2
    reports: list[Report] = []
    failed = False
    for name in names:
        if name in SCRIPTS:
            failed |= _run_script(name, options) != 0
            continue
        module = import_module(f"benchmarks.{name}")
        report: Report = module.run(_measured(getattr(module, "OPTIONS", Options()), options))
        print(*report.lines(), sep="\n", flush=True)
        reports.append(report)
        failed |= not all(claim.held for claim in report.claims)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.encode(Written(reports)) + b"\n")
    if options.compare is not None:
        print(*compared(old, reports), sep="\n")
    return 1 if failed else 0


def _measured(defaults: Options, given: argparse.Namespace) -> Options:
    """What was given, and the benchmark's own defaults for the rest."""
    names = Options.__struct_fields__
    said = {name: vars(given)[name] for name in names if vars(given)[name] is not None}
    return msgspec.structs.replace(defaults, **said)


def _list() -> None:
    for name in BENCHMARKS:
        print(f"{name:22}{import_module(f'benchmarks.{name}').SUMMARY}")
    for name, script in SCRIPTS.items():
        print(f"{name:22}{script.summary}")
    print(f"{'all':22}all of them")
    print("\nNAME --explain tells its peer, its load shape, and what would be cheating.")


def _run_script(name: str, options: argparse.Namespace) -> int:
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    for option in SCRIPTS[name].options:
        value = getattr(options, option)
        if value is not None:
            command += [f"--{option}", str(value)]
    print(f"{name}:", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Side-by-side benchmarks.", allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all; none lists them")
    parser.add_argument("--ci", action="store_true", help=f"the short form: {', '.join(IN_CI)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports here too")
    parser.add_argument(
        *("--compare", "--before"),
        type=Path,
        metavar="FILE",
        help="with such a file: old, new, and their ratio",
    )
    parser.add_argument(
        "--explain", action="store_true", help="run nothing: say what is measured, and how"
    )
    parser.add_argument(
        "--seconds", type=_positive(float), metavar="S", help="counted time of one run"
    )
    parser.add_argument(
        "--rounds", type=_positive(int), metavar="N", help="how often contestants take turns"
    )
    parser.add_argument(
        "--pin", action="store_true", help="a core of its own for the measured process"
    )
    parser.add_argument("--output", metavar="FILE", help="the picture (build/NAME.png)")
    parser.add_argument(
        "--seed", type=_positive(int), metavar="N", help="of what runs in virtual time (1)"
    )
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < _FAR_TOO_MUCH:
            raise argparse.ArgumentTypeError(
                f"{text} is no number above 0 and below {_FAR_TOO_MUCH:,}"
            )
        return value

    return read


if __name__ == "__main__":
    sys.exit(main())
