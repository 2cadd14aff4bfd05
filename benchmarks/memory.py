"""What the runtime holds in memory: idle, with 1,000 idle connections, and around an 8 MiB body.

Peer: none runs beside it; the bounds are the project's own. Figures are resident sizes that the
kernel tells (/proc/PID/status: VmRSS, and VmHWM for peaks), of a fresh runtime for each row, its
bytecode compiled as pip does. MB are millions of bytes.

Load shape: this process is the load. "idle" has served nobody. "metrics on" has been scraped once;
"after two calls" are plain HTTP; "after a call over TLS" has met a certificate that it does not
trust, and so has loaded OpenSSL and the host's authorities, which an idle runtime has not
(`vastar_runtime/late_modules.py`). A connection counts as idle once it has been answered one health
check, so that its session exists. A body travels in the native payload format, after two small
calls that open what a first call opens; the peak is over the resident size before the call.

Cheating would be: a figure of Python's heap in place of the process; an interpreter made smaller by
flags that users do not give; idle figures told as those of a runtime at work.
"""

import contextlib
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from typing import Final

from benchmarks._processes import (
    Runtime,
    compile_bytecode,
    peak_bytes,
    reset_peak,
    resident_bytes,
    running_runtime,
    running_upstream,
)
from benchmarks._report import Claim, Options, Report, watch_others
from benchmarks._tls_upstream import running_tls_upstream
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
WANTED_IDLE_MB: Final = 34.0
WANTED_IDLE_WITH_METRICS_MB: Final = 40.0
WANTED_CONNECTION_BYTES: Final = 12_000
WANTED_PEAK_RATIO: Final = 3.0
_SETTLE_S: Final = 0.5
_SCRAPE_S: Final = 10.0


def run(_options: Options) -> Report:
    """Measure all rows once: memory does not jitter as time does."""
    report = Report("memory", [])
    compile_bytecode()
    with watch_others(report), running_upstream() as upstream, running_tls_upstream() as secure:
        idle_mb = _resident_mb()
        metrics_mb = _resident_mb_with_metrics()
        plain_mb = _resident_mb(f"{upstream}/small")
        tls_mb = _resident_mb(f"{secure.url}/small", trusted=False)
        connection_bytes = _bytes_per_connection()
        up = _peak_ratio(upstream, HttpRequest(f"{upstream}/sink", "POST", body=bytes(BODY_BYTES)))
        down = _peak_ratio(upstream, HttpRequest(f"{upstream}/bytes/{BODY_BYTES}"))
    report.rows = [
        {"what": "idle, MB", "measured": idle_mb},
        {"what": "idle with metrics on, MB", "measured": metrics_mb},
        {"what": "after two calls, MB", "measured": plain_mb},
        {"what": "after a call over TLS, MB", "measured": tls_mb},
        {"what": "one idle connection of 1,000, bytes", "measured": connection_bytes},
        {"what": "8 MiB up: peak over idle, of the body", "measured": up},
        {"what": "8 MiB down: peak over idle, of the body", "measured": down},
    ]
    report.claims = [
        Claim("idle MB", idle_mb, WANTED_IDLE_MB, at_most=True),
        Claim("idle MB with metrics on", metrics_mb, WANTED_IDLE_WITH_METRICS_MB, at_most=True),
        Claim(
            "bytes of an idle connection", connection_bytes, WANTED_CONNECTION_BYTES, at_most=True
        ),
        Claim("peak over idle, 8 MiB up", up, WANTED_PEAK_RATIO, at_most=True),
        Claim("peak over idle, 8 MiB down", down, WANTED_PEAK_RATIO, at_most=True),
    ]
    return report


def _resident_mb(url: str | None = None, *, trusted: bool = True) -> float:
    """Of a fresh runtime, idle or after two calls; those to a stranger's certificate fail."""
    with running_runtime() as runtime:
        if url is not None:
            with _connected(runtime) as sock:
                for _ in range(2):
                    if trusted:
                        _call(sock, HttpRequest(url))
                    else:
                        _refused_call(sock, HttpRequest(url))
        time.sleep(_SETTLE_S)
        return resident_bytes(runtime.pid) / 1e6


def _resident_mb_with_metrics() -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    with running_runtime("--metrics-listen", where) as runtime:
        # The proxies of the environment are not for a loopback address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{where}/metrics", timeout=_SCRAPE_S) as scraped:
            if b"\n# TYPE vastar_" not in scraped.read():
                raise RuntimeError("that are not the metrics")
        time.sleep(_SETTLE_S)
        return resident_bytes(runtime.pid) / 1e6


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
    answer = _answer_to(sock, request)
    if answer.error_class is not ErrorClass.SUCCESS:
        raise RuntimeError(f"{ErrorClass(answer.error_class).name}: {answer.error_message}")


def _refused_call(sock: socket.socket, request: HttpRequest) -> None:
    answer = _answer_to(sock, request)
    if "certificate verify failed" not in (answer.error_message or ""):
        raise RuntimeError(f"{ErrorClass(answer.error_class).name}: {answer.error_message}")


def _answer_to(sock: socket.socket, request: HttpRequest) -> ExecuteResponse:
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
    return answer


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
