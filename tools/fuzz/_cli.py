"""The fuzzer as a program."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tools.fuzz._machine import PROFILES
from tools.fuzz._running import Report, Wanted, attack, reproduces
from tools.fuzz._steps import Recording, Step, load, save
from tools.fuzz._upstream import Upstream
from tools.fuzz._world import Address, World

__all__ = ["main"]

_SHOWN_BYTES = 400
_EPILOG = """\
The runtime must have nothing else to do meanwhile: its calls in flight are counted. Profiles http
and stream need it to reach 127.0.0.1 over HTTP. --base keeps to the published protocol: no health
checks, no streams, no bad framing.
Exit codes: 0 every rule held, 1 one did not, 2 bad flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, or replay; the exit code."""
    flags = _parser().parse_args(arguments)
    recording = load(flags.replay) if flags.replay else None
    profile = recording.profile if recording else flags.profile
    is_base = recording.base if recording else flags.base
    if is_base and profile in {"stream", "all"}:
        profile = "http"
    with _world(flags, profile, is_base=is_base) as world:
        if recording is not None:
            return _replay(recording, world)
        wanted = Wanted(
            profile, flags.examples, flags.minutes * 60, flags.seed, flags.steps, flags.shrink_s
        )
        report = attack(world, wanted)
    _print(report)
    if report.recording is None:
        return 0
    save(report.recording, flags.out)
    print(
        f"to see it again: python -m tools.fuzz --socket {flags.socket} --replay {flags.out}",
        file=sys.stderr,
    )
    return 1


@contextmanager
def _world(flags: argparse.Namespace, profile: str, *, is_base: bool) -> Iterator[World]:
    with nullcontext() if profile == "wire" else Upstream() as upstream:
        world = World(
            _address(flags.socket),
            upstream,
            is_base=is_base,
            patience_s=flags.patience_s,
            is_one_process=not flags.workers,
        )
        yield world
        world.close()


def _address(target: str) -> Address:
    """`host:port` is TCP, everything else the path of a socket."""
    host, _, port = target.rpartition(":")
    is_tcp = port.isdigit() and "/" not in host
    return (host.strip("[]") or "127.0.0.1", int(port)) if is_tcp else target


def _replay(recording: Recording, world: World) -> int:
    print(f"recorded: {recording.rule}: {recording.what}")
    started_s = time.monotonic()
    violation = reproduces(recording, world)
    print(f"{len(recording.steps)} steps in {time.monotonic() - started_s:.2f} s: ", end="")
    print("every rule held" if violation is None else f"BROKEN: {violation}")
    return 0 if violation is None else 1


def _print(report: Report) -> None:
    word = "ok" if report.recording is None else "BROKEN"
    print(
        f"{word}: profile {report.profile}, seed {report.seed}, {report.examples} examples, "
        f"{report.took_s:.1f} s",
        flush=True,
    )
    recording = report.recording
    if recording is None:
        return
    print(
        f"\nthis did not hold: {recording.rule}\n  {recording.what}\n"
        f"{len(recording.steps)} steps, {recording.sent_bytes} bytes, "
        f"seen again {report.seen_again} of {report.tried_again} times:",
        *(f"  {_shown(step)}" for step in recording.steps),
        sep="\n",
        file=sys.stderr,
    )


def _shown(step: Step) -> str:
    if step.kind != "send":
        return f"{step.kind} {step.data.decode('latin1') or step.connection}"
    text = step.data[:_SHOWN_BYTES].hex()
    more = "" if len(step.data) <= _SHOWN_BYTES else f"... ({len(step.data)} bytes)"
    return f"send {step.connection} {text}{more}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description="Attack a live runtime, and show what breaks as few bytes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--socket", required=True, help="path of its socket, or HOST:PORT")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="all", help="(all)")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--examples", type=_at_least_1, default=200, help="how many (200)")
    amount.add_argument("--minutes", type=float, default=0.0, help="or for how long")
    parser.add_argument("--steps", type=_at_least_1, default=20, help="rules in an example (20)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (0)")
    parser.add_argument(
        "--workers",
        action="store_true",
        help="it has several processes, which count for themselves",
    )
    parser.add_argument("--base", action="store_true", help="the published protocol only")
    parser.add_argument(
        "--patience-s", type=float, default=5.0, help="how long something certain may take (5)"
    )
    parser.add_argument(
        "--shrink-s", type=float, default=60.0, help="time to make a failure smaller (60)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz-failure.json"), help="where a failure is kept"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a kept failure again")
    return parser


def _at_least_1(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
