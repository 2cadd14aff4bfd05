"""The simulator as a program: flags made from the knobs, one ready line, a quick end on signals."""

import argparse
import signal
import sys
from collections.abc import Sequence

import trio

from tools.llm_simulator import _knobs
from tools.llm_simulator._knobs import BadKnobError, Knobs
from tools.llm_simulator._server import LOOPBACK, Simulator

PORT = 4545
_EPILOG = """\
Every knob is also a request header, for that request alone: --head-delay-s 0.5 is
"x-sim-head-delay-s: 0.5". GET /_sim/stats shows what happened so far.
Exit codes: 0 stopped by SIGTERM or SIGINT, 1 cannot listen, 2 bad flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; the exit code."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    texts = {
        name: getattr(flags, name)
        for name in Knobs.__struct_fields__
        if getattr(flags, name) is not None
    }
    try:
        knobs = _knobs.with_texts(Knobs(), texts)
    except BadKnobError as error:
        parser.error(str(error))
    return trio.run(_serve_until_signalled, knobs, flags.host, flags.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.llm_simulator",
        description="An LLM endpoint to develop and test against: OpenAI's and Gemini's shapes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default=LOOPBACK, help=f"address to listen on ({LOOPBACK})")
    parser.add_argument("--port", type=int, default=PORT, help=f"0: any free one ({PORT})")
    group = parser.add_argument_group("knobs")
    for name, description in _knobs.descriptions().items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, metavar="VALUE", help=description.replace("%", "%%"))
    return parser


async def _serve_until_signalled(knobs: Knobs, host: str, port: int) -> int:
    simulator = Simulator(knobs)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(simulator.serve, host, port)
            except (OSError, OverflowError) as error:
                print(f"cannot listen on {host} port {port}: {error}", file=sys.stderr)
                return 1
            print(f"LLM simulator ready on {simulator.url}", flush=True)
            async for _signal in signals:
                nursery.cancel_scope.cancel()
                break
    return 0
