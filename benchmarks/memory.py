"""What the runtime holds in memory: idle, with 1,000 idle connections, and around an 8 MiB body.

Peer: none runs beside it; the bounds are the project's own. Figures are resident sizes that the
kernel tells (/proc/PID/status: VmRSS, and VmHWM for peaks), of a fresh runtime for each row.

Load shape: this process is the load. A connection counts as idle once it has been answered one
health check, so that its session exists. A body travels in the native payload format, after two
small calls that open what a first call opens; the peak is over the resident size before the call.
"""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from typing import Final

from benchmarks._processes import (
    Runtime,
    peak_bytes,
    reset_peak,
    resident_bytes,
    running_runtime,
    running_upstream,
)
from benchmarks._report import Claim, Options, Report, watch_others
from vastar_client.wire import (
    NEED_DATA,
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HttpRequest,
    Message,
    PayloadFormat,
    Role,
    Signal,
    encode_http_request,
)

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "resident memory: idle, 1,000 idle connections, an 8 MiB body each way"
CONNECTIONS: Final = 1000
BODY_BYTES: Final = 8 * 1024 * 1024
WANTED_IDLE_BYTES: Final = 40_000_000
WANTED_PEAK_RATIO: Final = 3.0
_MIB: Final = 1024 * 1024
_SETTLE_S: Final = 0.5


def run(_options: Options) -> Report:
    """Measure all rows once: memory does not jitter as time does."""
    report = Report("memory", [])
    with watch_others(report), running_upstream() as upstream:
        idle_bytes = _idle_bytes()
        per_connection_bytes = _bytes_per_connection()
        up = _peak_ratio(upstream, HttpRequest(f"{upstream}/sink", "POST", body=bytes(BODY_BYTES)))
        down = _peak_ratio(upstream, HttpRequest(f"{upstream}/bytes/{BODY_BYTES}"))
    report.rows = [
        {"what": "idle, MB", "measured": idle_bytes / 1e6},
        {"what": "one idle connection of 1,000, bytes", "measured": per_connection_bytes},
        {"what": "8 MiB up: peak over idle, of the body", "measured": up},
        {"what": "8 MiB down: peak over idle, of the body", "measured": down},
    ]
    report.claims = [
        Claim("idle MB", idle_bytes / 1e6, WANTED_IDLE_BYTES / 1e6, at_most=True),
        Claim("peak over idle, 8 MiB up", up, WANTED_PEAK_RATIO, at_most=True),
        Claim("peak over idle, 8 MiB down", down, WANTED_PEAK_RATIO, at_most=True),
    ]
    return report


def _idle_bytes() -> int:
    with running_runtime() as runtime:
        time.sleep(_SETTLE_S)
        return resident_bytes(runtime.pid)


def _bytes_per_connection() -> float:
    with _many_descriptors(), running_runtime() as runtime, contextlib.ExitStack() as opened:
        _converse(opened.enter_context(_connected(runtime)), HealthCheck())
        before_bytes = resident_bytes(runtime.pid)
        for _ in range(CONNECTIONS):
            _converse(opened.enter_context(_connected(runtime)), HealthCheck())
        time.sleep(_SETTLE_S)
        return (resident_bytes(runtime.pid) - before_bytes) / CONNECTIONS


@contextlib.contextmanager
def _many_descriptors() -> Iterator[None]:
    """Room for the connections, here and in the processes started meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 100
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _peak_ratio(upstream: str, request: HttpRequest) -> float:
    """How far one call lifts the resident size, over the size of its body."""
    with running_runtime() as runtime, _connected(runtime) as sock:
        for _ in range(2):
            _call(sock, HttpRequest(f"{upstream}/small"))
        time.sleep(_SETTLE_S)
        before_bytes = resident_bytes(runtime.pid)
        reset_peak(runtime.pid)
        _call(sock, request)
        return (peak_bytes(runtime.pid) - before_bytes) / BODY_BYTES


def _call(sock: socket.socket, request: HttpRequest) -> None:
    answer = _converse(
        sock,
        ExecuteRequest(
            request_id=1,
            tenant_id="default",
            connector_name="http",
            operation="request",
            payload=encode_http_request(request),
            payload_format=PayloadFormat.NATIVE,
        ),
    )
    assert isinstance(answer, ExecuteResponse)
    if answer.error_class is not ErrorClass.SUCCESS:
        raise RuntimeError(f"{ErrorClass(answer.error_class).name}: {answer.error_message}")


def _converse(sock: socket.socket, message: Message) -> Message:
    """Send a message and return what comes back."""
    connection = Connection(Role.CLIENT)
    for buffer in connection.send(message):
        sock.sendall(buffer)
    while (event := connection.next_event()) is NEED_DATA:
        connection.receive_data(sock.recv(262_144))
    if isinstance(event, Signal):
        raise RuntimeError("the runtime closed the connection")  # noqa: TRY004 - of its doing
    return event


def _connected(runtime: Runtime) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(runtime.socket_path)
    return sock
