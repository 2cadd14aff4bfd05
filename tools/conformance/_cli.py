"""The conformance kit as a program."""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

import trio

from tools.conformance._rules import Rule
from tools.conformance._run import Result, Verdict, as_json, chosen_rules, play_all, table
from tools.conformance._upstream import serving_upstream
from tools.conformance._world import World

_EPILOG = """\
The implementation must be running, and may call 127.0.0.1, where the kit brings an HTTP server of
its own on a free port below 10000 (4600 if it can be had: it stands in the captured frames). Nobody
else should be calling meanwhile: in the end nothing may be in flight.

  python -m tools.conformance --socket /tmp/vastar-connector-runtime.sock
  python -m tools.conformance --tcp 127.0.0.1:5000 --base
  python -m tools.conformance --socket PATH --rule 'streams.*' --rule 'cancel.*'

Exit codes: 0 no rule is broken, 1 one is, 2 bad flags, 3 nobody answers there."""

_UNREACHABLE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rules and print what came of them; the exit code."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    rules = chosen_rules(
        base_only=flags.base, quick=flags.quick, fatal=flags.drain, patterns=flags.rule or ()
    )
    if not rules:
        parser.error("no rule has such a name: --list shows them all")
    if flags.list:
        for rule in rules:
            print(f"{'base' if rule.base else '    '}  {rule.name:34} {rule.text}")
        return 0
    if (flags.socket is None) == (flags.tcp is None):
        parser.error("say where it listens: --socket PATH, or --tcp HOST:PORT")
    if flags.tcp is not None and not flags.tcp.rpartition(":")[2].isdigit():
        parser.error(f"{flags.tcp!r} is no HOST:PORT")
    where = flags.socket or flags.tcp
    try:
        results = trio.run(_play, flags, rules)
    except OSError as error:
        print(f"{where}: {error}", file=sys.stderr)
        return _UNREACHABLE
    print(as_json(results) if flags.json else table(results))
    return int(any(result.verdict is Verdict.FAIL for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.conformance",
        description="Hold an implementation of the connector protocol to its rules.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--socket", metavar="PATH", help="the Unix socket it listens at")
    parser.add_argument("--tcp", metavar="HOST:PORT", help="or the address")
    parser.add_argument("--base", action="store_true", help="only the published protocol")
    parser.add_argument(
        "--quick", action="store_true", help="without rules that take 15 s and more"
    )
    parser.add_argument(
        "--drain", action="store_true", help="in the end ask it to leave, and see how it does"
    )
    parser.add_argument("--rule", action="append", metavar="PATTERN", help="only such names")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list instead of the table"
    )
    parser.add_argument("--list", action="store_true", help="print the rules, and play none")
    return parser


async def _play(flags: argparse.Namespace, rules: Sequence[Rule]) -> list[Result]:
    if flags.socket is not None:
        connect = partial(trio.open_unix_socket, flags.socket)
    else:
        host, _, port = flags.tcp.rpartition(":")
        connect = partial(trio.open_tcp_stream, host.strip("[]") or "127.0.0.1", int(port))
    await trio.aclose_forcefully(await connect())
    async with serving_upstream() as upstream:
        world = World(connect, upstream, lambda: time.time() * 1000)
        return await play_all(rules, world)
