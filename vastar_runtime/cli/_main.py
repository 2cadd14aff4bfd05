"""Options, help texts and the one place where errors become exit codes.

Commands are imported when they are run: `status` needs no event loop, `serve` no subprocess.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final, TextIO

from vastar_runtime._version import __version__
from vastar_runtime.cli._call_options import add_call_options
from vastar_runtime.cli._target import load_from_options
from vastar_runtime.cli.control import ControlError
from vastar_runtime.cli.exit_codes import EXPLAINED, ExitCode
from vastar_runtime.config import (
    DEFAULT_SOCKET_PATH,
    BadName,
    ConfigError,
    canonical_server,
    parse_tcp_address,
    render,
    render_for,
)
from vastar_runtime.runtime_files import AlreadyRunningError, RuntimeFileError

__all__ = ["main"]

DEFAULT_LOG_FILE: Final = "/tmp/vastar-runtime.log"  # noqa: S108 - opened as our own or not at all

_EPILOG: Final = (
    "exit status:\n"
    + "\n".join(f"  {int(code):>3}  {words}" for code, words in EXPLAINED.items())
    + """

environment (the command line outranks it, and it outranks the configuration file):
  VASTAR_CONFIG        configuration file
  VASTAR_SOCKET_PATH   socket, """
    + DEFAULT_SOCKET_PATH
    + """ by default
  VASTAR_USE_TCP       true: listen on TCP instead of the socket
  VASTAR_TCP_HOST, VASTAR_TCP_PORT   where (127.0.0.1, 5000)
  VASTAR_LOG_LEVEL, VASTAR_LOG_FORMAT
  VASTAR_METRICS_LISTEN   where metrics can be fetched; off by default

to reach a runtime that asks who calls:
  VASTAR_TOKEN_FILE    file with a token in its first line
  VASTAR_TLS_CA_FILE   authorities (PEM) to trust; TCP is then spoken with TLS
"""
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. `arguments` are the process's own by default."""
    _open_closed_descriptors()
    _print_any_text()
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        code = int(command(options))
    except ConfigError as error:
        return _fail(str(error), ExitCode.USAGE)
    except AlreadyRunningError as error:
        return _fail(str(error), ExitCode.ALREADY_RUNNING)
    except (RuntimeFileError, ControlError) as error:
        return _fail(str(error), ExitCode.ERROR)
    except OSError as error:
        if options.command == "serve":
            raise  # it says itself what can happen to it: this is a mistake of ours
        return _fail_to_print(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    try:
        sys.stdout.flush()
    except OSError as error:
        return _fail_to_print(error)
    return code


def _print_any_text() -> None:
    """Escape what the terminal's encoding has no characters for, rather than fail of it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail_to_print(error: OSError) -> int:
    """Say so, where somebody still listens."""
    try:
        sys.stdout.flush()
    except OSError:
        # What was not taken is not tried once more at the end of the process.
        with suppress(OSError):  # a stream that has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        return ExitCode.ERROR
    # Without a name it is what was printed that cannot be written.
    name = error.filename or "standard output"
    return _fail(f"{name}: {(error.strerror or str(error)).lower()}", ExitCode.ERROR)


def _open_closed_descriptors() -> None:
    """Put /dev/null where a standard descriptor is closed.

    Else the next file or socket gets its number, and whatever is printed goes into that.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is what `open` gives, and this is it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has None for a stream that was closed at its start, and prints to another instead.
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open to the end


def _fail(message: str, code: ExitCode) -> int:
    with suppress(OSError):  # the code says it too, where nobody can read
        for line in message.splitlines():
            print(f"vastar: {line}", file=sys.stderr)
    return code


def _check_config(options: argparse.Namespace) -> ExitCode:
    loaded = load_from_options(options)
    from vastar_runtime.unusable import refuse_unusable  # noqa: PLC0415 - as above

    refuse_unusable(loaded.config, os.environ)
    caller = {name: getattr(options, name) for name in ("tenant", "workspace", "origin")}
    if caller["workspace"] is not None and caller["tenant"] is None:
        _fail("--workspace needs --tenant: workspaces are a tenant's", ExitCode.USAGE)
        return ExitCode.USAGE
    if all(name is None for name in caller.values()):
        print(render(loaded, explain=options.explain), end="")
    else:
        print(render_for(loaded, **caller, explain=options.explain), end="")
    return ExitCode.OK


def _later(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        command = getattr(import_module(f"vastar_runtime.cli.{module}"), name)
        return int(command(options))

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vastar",
        description="The connector runtime: a local daemon that makes a host's outgoing calls.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vastar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], words: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=words, description=words[0].upper() + words[1:] + ".", allow_abbrev=False
        )
        command.set_defaults(run=run, command=name)
        _add_place(command, serving=name in {"serve", "start", "check-config"})
        return command

    serve = add("serve", _later("_serve", "serve"), "run in the foreground until SIGTERM or SIGINT")
    _add_serving(serve)
    serve.add_argument("--worker-place", help=argparse.SUPPRESS)  # what a supervisor tells a worker
    start = add("start", _later("_start", "start"), "run in the background; returns when it serves")
    _add_serving(start)
    start.add_argument(
        "--log-file",
        default=DEFAULT_LOG_FILE,
        metavar="FILE",
        help="where its output is appended (default: %(default)s)",
    )
    start.add_argument(
        "--timeout-s",
        type=_seconds,
        default=15.0,
        metavar="S",
        help="how long to wait until it serves (default: %(default)g)",
    )
    status = add("status", _later("_status", "status"), "say whether and how a runtime is running")
    status.add_argument("--json", action="store_true", help="as one line of JSON")
    status.add_argument("--verbose", action="store_true", help="also layers, policies and limits")
    status.add_argument(
        "--tenants", action="store_true", help="only what tenants have used, and what is left"
    )
    status.add_argument("--metrics", action="store_true", help="only the metrics, for Prometheus")
    add(
        "reload",
        _later("_reload", "reload"),
        "have a runtime read its configuration anew, without dropping calls (SIGHUP does the same)",
    )
    stop = add("stop", _later("_stop", "stop"), "let a runtime finish its calls, and wait for it")
    stop.add_argument(
        "--timeout-s",
        type=_seconds,
        metavar="S",
        help="how long to wait (default: as long as the runtime gives its calls and streams)",
    )
    stop.add_argument("--now", action="store_true", help="cut off the calls in flight")
    add_call_options(add("call", _later("_call", "call"), "make an HTTP call through a runtime"))
    add("clean", _later("_clean", "clean"), "remove the socket and lock that a dead runtime left")
    check = add("check-config", _check_config, "check the configuration and print what would hold")
    _add_serving(check)
    check.add_argument("--explain", action="store_true", help="say what each key means")
    _add_caller(check)
    return parser


def _add_place(command: argparse.ArgumentParser, *, serving: bool) -> None:
    command.add_argument("--socket", metavar="PATH", help="the Unix socket of the runtime")
    command.add_argument(
        "--tcp",
        metavar="[HOST:]PORT",
        action="append",
        type=_address,
        help=(
            "listen on TCP too (may be repeated; loopback only without --tcp-allow-remote)"
            if serving
            else "the TCP address of the runtime, when it is not asked through its socket"
        ),
    )
    if serving:
        command.add_argument(
            "--tcp-allow-remote",
            action="store_true",
            help="let --tcp listen beyond loopback; needs a TLS certificate and tokens configured",
        )
    command.add_argument("--config", metavar="FILE", help="configuration file (TOML)")


def _add_serving(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log-level", metavar="LEVEL", help="debug, info, warning, error or critical"
    )
    command.add_argument("--log-format", metavar="FORMAT", help="console, json or auto")
    command.add_argument(
        "--drain-s", metavar="S", help="time that calls in flight get at shutdown, in seconds"
    )
    command.add_argument(
        "--workers",
        metavar="N",
        help="processes that serve side by side; auto: one for each core (default: 1)",
    )
    command.add_argument(
        "--metrics-listen", metavar="[HOST:]PORT", help="let metrics be fetched there (loopback)"
    )


def _add_caller(command: argparse.ArgumentParser) -> None:
    caller = command.add_argument_group(
        "one caller", "print the policies that hold for it, each with where that is written"
    )
    caller.add_argument("--tenant", metavar="NAME", type=_text, help="its tenant")
    caller.add_argument("--workspace", metavar="NAME", type=_text, help="its workspace")
    caller.add_argument(
        "--origin", metavar="URL", type=_origin, help="where it calls, such as https://api.test"
    )


def _text(argument: str) -> str:
    """A name, in UTF-8 whatever the encoding of this process is: so the configuration has it."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise argparse.ArgumentTypeError("give a name in UTF-8") from None


def _origin(argument: str) -> str:
    try:
        return canonical_server(_text(argument))
    except BadName as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address(text: str) -> str:
    try:
        parse_tcp_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 86_400:  # noqa: PLR2004 - a day, in any case too long to wait for
        raise argparse.ArgumentTypeError("give seconds from 0 to 86400")
    return seconds
