"""`call`: an HTTP call through a running runtime, as curl would make it without one.

Shape: options to a request (`_request`), an `Exchange` that hands the answer to an `Output`, and an
ending to an exit status. Without `--stream` and `--output` the answer comes as a whole, and must
fit into a frame.
"""

import argparse
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final

from vastar_client.wire import (
    ErrorClass,
    ExecuteRequest,
    HttpRequest,
    LocalProtocolError,
    PayloadFormat,
    ProtocolError,
    encode_http_request,
)
from vastar_runtime.cli._exchange import BodyFile, Ending, Exchange
from vastar_runtime.cli._line import ControlError, Line, NotRunningError
from vastar_runtime.cli._taking import Output
from vastar_runtime.cli._target import how_to_start, target_of
from vastar_runtime.cli.exit_codes import ExitCode

__all__ = ["call", "timing"]

_CONNECT_S: Final = 5.0
_GRACE_S: Final = 5.0
"""How much later than its deadline an answer may come before the runtime counts as stuck."""
_WHOLE_BYTES: Final = 1_048_576
"""The longest file that goes inside the request, which the runtime can then send again."""
_FIRST_ERROR_STATUS: Final = 400
_FRAME_LIMIT_WORDS: Final = "exceeds the frame limit"
_EXIT_OF: Final = {
    ErrorClass.TRANSIENT: ExitCode.TRANSIENT,
    ErrorClass.PERMANENT: ExitCode.PERMANENT,
    ErrorClass.RATE_LIMITED: ExitCode.RATE_LIMITED,
    ErrorClass.TIMEOUT: ExitCode.TIMED_OUT,
    ErrorClass.INVALID_REQUEST: ExitCode.INVALID_REQUEST,
}


def call(options: argparse.Namespace) -> ExitCode:
    """Make the call; the exit status says what became of it.

    Raises:
        ControlError: the connection to the runtime was lost.
        BrokenPipeError: nobody reads standard output any more.
    """
    address = target_of(options)
    try:
        with ExitStack() as stack:
            whole, body = _data(options, stack)
            request = _request(options, whole, body)
            line = stack.enter_context(closing(Line(address, _CONNECT_S, calls=True)))
            path = None if options.output == "-" else options.output
            output = stack.enter_context(closing(Output(path, with_head=options.include)))
            timeout_s = options.timeout_s
            if timeout_s is not None:
                timeout_s += _GRACE_S
            ending = Exchange(line, request, body, output).run(timeout_s)
    except NotRunningError as error:
        _say(f"{error}; {how_to_start(address)}")
        return ExitCode.NOT_RUNNING
    except TimeoutError as error:
        _say(str(error))
        return ExitCode.TIMED_OUT
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise ControlError(f"{name}{(error.strerror or str(error)).lower()}") from None
    except (LocalProtocolError, UnicodeEncodeError):
        # Not quoted: it may be a secret that cannot be written.
        _say("the request cannot be written: an option holds characters that are no text")
        return ExitCode.USAGE
    except ProtocolError as error:
        raise ControlError(f"{address}: {error}") from None
    return _conclude(ending, options)


def _conclude(ending: Ending, options: argparse.Namespace) -> ExitCode:
    if options.verbose:
        for name, value in timing(ending):
            print(f"{name:13} {value}", file=sys.stderr)
    if ending.error_class is ErrorClass.SUCCESS:
        is_bad = (ending.status_code or 0) >= _FIRST_ERROR_STATUS
        return ExitCode.HTTP_ERROR if is_bad else ExitCode.OK
    words = ending.message or "the call failed"
    if _FRAME_LIMIT_WORDS in words:
        words += " (add --stream, or --output FILE)"
    if ending.retry_after_ms:
        words += f"; come back in {ending.retry_after_ms / 1000:g} s"
    if ending.body_bytes:
        words += f"; {ending.body_bytes} bytes of the answer had come"
    _say(f"{words} ({ending.error_class.name}, {ending.disposition.name})")
    return _EXIT_OF[ending.error_class]


def timing(ending: Ending) -> Iterator[tuple[str, str]]:
    """What `--verbose` tells: names and values, without what is unknown."""
    if ending.status_code is not None:
        yield "status", str(ending.status_code)
    yield "attempts", str(ending.attempts)
    yield "queued", _ms(ending.queued_us / 1e6)
    yield "backoff", _ms(ending.backoff_us / 1e6)
    if ending.head_s is not None:
        yield "head", _ms(ending.head_s)
    if ending.first_byte_s is not None:
        yield "first byte", _ms(ending.first_byte_s)
    yield "total", f"{_ms(ending.total_s)} ({_ms(ending.duration_us / 1e6)} in the runtime)"
    yield "body", f"{ending.body_bytes} bytes"
    yield "outcome", ending.error_class.name
    yield "disposition", ending.disposition.name
    if ending.refused_by:
        yield "refused by", ending.refused_by


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _say(words: str) -> None:
    print(f"vastar: {words}", file=sys.stderr)


def _data(options: argparse.Namespace, stack: ExitStack) -> tuple[bytes | None, BodyFile | None]:
    """The body as a whole, or as a file to be read on the way.

    Raises:
        OSError: it cannot be read.
    """
    given: str | None = options.data if options.json is None else options.json
    if given is None:
        return None, None
    if not given.startswith("@"):
        return os.fsencode(given), None
    if given == "@-":
        fd = sys.stdin.fileno()
    else:
        fd = os.open(given[1:], os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
    found = os.fstat(fd)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(None, "is a directory", given[1:])
    # Files without a size of their own (/proc, a terminal, a pipe) go as they come.
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return None, BodyFile(fd)
    left_bytes = max(0, found.st_size - os.lseek(fd, 0, os.SEEK_CUR))
    if left_bytes > _WHOLE_BYTES:
        return None, BodyFile(fd, left_bytes)
    with open(fd, "rb", closefd=False) as file:
        return file.read(left_bytes), None


def _request(
    options: argparse.Namespace, whole: bytes | None, body: BodyFile | None
) -> ExecuteRequest:
    """The call.

    Raises:
        LocalProtocolError, UnicodeEncodeError: it cannot be written.
    """
    has_data = whole is not None or body is not None
    headers: list[tuple[str, str]] = list(options.header)
    added: list[tuple[str, str]] = []
    if options.json is not None:
        added = [("content-type", "application/json"), ("accept", "application/json")]
    elif has_data:
        added = [("content-type", "application/x-www-form-urlencoded")]
    if body is not None and body.left_bytes is not None:
        # Else it would go upstream in chunks, which not every server takes.
        added.append(("content-length", str(body.left_bytes)))
    named = {name.lower() for name, _ in headers}
    headers += [(name, value) for name, value in added if name not in named]
    http = HttpRequest(
        options.url,
        options.method or ("POST" if has_data else "GET"),
        headers,
        whole,
    )
    deadline_at_ms = 0
    if options.timeout_s is not None:
        deadline_at_ms = int((time.time() + options.timeout_s) * 1000)
    return ExecuteRequest(
        request_id=1,
        tenant_id=options.tenant,
        workspace_id=options.workspace,
        connector_name="http",
        operation="request",
        deadline_at_ms=deadline_at_ms,
        payload=encode_http_request(http),
        payload_format=PayloadFormat.NATIVE,
        idempotency_key=options.idempotency_key,
        stream=options.stream or options.output is not None,
        body_follows=body is not None,
    )
