"""The options of `call`: named as curl names them where it has the same ones.

What is refused here is never quoted: headers and data hold secrets.
"""

import argparse
from typing import Final

__all__ = ["add_call_options"]

_EPILOG: Final = """
The URL is called by the runtime, with its limits and retries, and for it alone: any status is an
answer. Data from a pipe, and more than 1 MiB of a file, is sent while it is read, and so cannot
be sent again once the upstream has seen more than 64 KiB of it.

exit status: 0 status below 400, 11 another one; 5 timed out, 7 may pass, 8 will not pass, 9 rate
limited, 10 the request is wrong, 3 no runtime there, 2 wrong options, 130 interrupted, 1 the rest
"""
_MOST_S: Final = 86_400.0


def add_call_options(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.epilog = _EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("url", metavar="URL", help="what to call, with http:// or https://")
    command.add_argument(
        "-X", "--method", metavar="METHOD", help="GET by default, POST where there is data"
    )
    command.add_argument(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        type=_header,
        default=[],
        help="a header field of the request; may be repeated",
    )
    data = command.add_mutually_exclusive_group()
    data.add_argument(
        "-d", "--data", metavar="DATA", help="its body: text, @FILE, or @- for standard input"
    )
    data.add_argument(
        "--json", metavar="DATA", help="as --data, with the content type application/json"
    )
    command.add_argument(
        "--stream", action="store_true", help="print what comes as it comes, of any length"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", help="write the body to FILE as it comes, of any length"
    )
    command.add_argument(
        "-i", "--include", action="store_true", help="print the head of the answer too"
    )
    command.add_argument("--tenant", metavar="NAME", default="default", help="for whom (default)")
    command.add_argument("--workspace", metavar="NAME", help="for which workspace of the tenant")
    command.add_argument(
        "--timeout-s",
        metavar="S",
        type=_timeout,
        help="longest time in all (default: as the runtime is configured)",
    )
    command.add_argument(
        "--idempotency-key", metavar="KEY", help="lets the runtime repeat what it would not else"
    )
    command.add_argument(
        "-v", "--verbose", action="store_true", help="say afterwards where the time went"
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("a header field looks like 'name: value'")
    return name.strip(), value.strip()


def _timeout(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _MOST_S:
        raise argparse.ArgumentTypeError(f"give seconds above 0 and up to {_MOST_S:g}")
    return seconds
