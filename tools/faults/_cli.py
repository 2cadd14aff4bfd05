"""Proxy and hostile upstream as programs: one ready line, a quick end on signals."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from tools.faults._hostile import CATALOGUE, HostileUpstream, serve_hostile
from tools.faults._plan import BadFaultError, Plan
from tools.faults._proxy import FaultProxy, proxied

_EPILOG = """\
Faults: [CONNECTION:][up:|down:]KIND, several of them with spaces between.
  latency=SECONDS jitter=SECONDS   each piece comes later
  bandwidth=BYTES_PER_S            no faster (50k, 2M)
  slice=BYTES                      in small pieces
  corrupt=RATIO corrupt@BYTE       bits turned over
  reset close halfclose blackhole  with @BYTE, or @SECONDSs after the connection began; else at once
CONNECTION counts from 1; without it, and without a direction, all are met.

  python -m tools.faults proxy --to /tmp/vastar-connector-runtime.sock --listen /tmp/bad.sock \\
      latency=0.05 jitter=0.02 3:down:reset@1000
  python -m tools.faults proxy --to 127.0.0.1:8080 --seed 7 --share 0.3
  python -m tools.faults upstream --port 4600     # GET /ends-in-body, /coding-bomb, ...
  python -m tools.faults list

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 cannot listen, 2 bad flags."""

_Opened = Callable[[], AbstractAsyncContextManager[FaultProxy | HostileUpstream]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; the exit code."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    if flags.command == "list":
        _list()
        return 0
    if flags.command == "upstream":
        if flags.only is not None and flags.only not in CATALOGUE:
            parser.error(f"no misbehaviour is called {flags.only!r}: `list` shows them all")
        wrong = CATALOGUE[flags.only] if flags.only else None
        times = math.inf if flags.times is None else flags.times
        opened: _Opened = partial(
            serve_hostile, wrong, times=times, host=flags.host, port=flags.port
        )
    else:
        try:
            plan = Plan.parse(" ".join(flags.faults), seed=flags.seed, share=flags.share)
        except BadFaultError as error:
            parser.error(str(error))
        opened = partial(proxied, flags.to, plan, listen=flags.listen)
    try:
        trio.run(_until_signalled, opened)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.faults",
        description="Faults on purpose: a proxy that spoils connections, a hostile HTTP upstream.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    proxy = commands.add_parser("proxy", help="between callers and a target")
    proxy.add_argument("--to", required=True, help="HOST:PORT, or the path of a Unix socket")
    proxy.add_argument("--listen", default="127.0.0.1:0", help="the same (127.0.0.1:0)")
    proxy.add_argument("--seed", type=int, default=0, help="of all chance (0)")
    proxy.add_argument(
        "--share", type=float, default=0.0, help="of connections with faults by chance (0)"
    )
    proxy.add_argument("faults", nargs="*", help="as below")
    upstream = commands.add_parser("upstream", help="the first path of a connection says what")
    upstream.add_argument("--host", default="127.0.0.1", help="address (127.0.0.1)")
    upstream.add_argument("--port", type=int, default=0, help="0: any free one (0)")
    upstream.add_argument("--only", metavar="NAME", help="this misbehaviour, whatever the path")
    upstream.add_argument("--times", type=int, help="connections before it behaves (all)")
    commands.add_parser("list", help="the catalogue, and what a runtime has to answer")
    return parser


def _list() -> None:
    for wrong in CATALOGUE.values():
        expected = wrong.expected
        how = " or ".join(disposition.name for disposition in expected.dispositions)
        print(f"{wrong.name:32} {wrong.about}")
        print(f"{'':32} {expected.error_class.name}, {how}, /{expected.message}/")


async def _until_signalled(opened: _Opened) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with opened() as service:
            where = (
                service.address
                if isinstance(service, FaultProxy)
                else f"http://127.0.0.1:{service.port}"
            )
            if not isinstance(where, str):
                where = f"{where[0]}:{where[1]}"
            print(f"faults ready on {where}", flush=True)
            async for _signal in signals:
                break
