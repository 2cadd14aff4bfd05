"""The ceiling: nginx driven directly by wrk, on machines that have both. No other peer is so quick.

What the runtime reaches of that is a goal that holds on any machine. nginx gives the upstream's 27
bytes out of its configuration, without a log and with one worker process a core: its best, as the
goal has it (130,000/s on 2 cores).
"""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks._upstream import SMALL_BODY

__all__ = ["missing", "rate_told", "requests_per_s", "running_nginx"]

_RATE: Final = re.compile(r"^Requests/sec:\s*([\d.]+)$", re.MULTILINE)
_FAULTS: Final = re.compile(r"Non-2xx|Socket errors")
_START_TIMEOUT_S: Final = 10.0
_CONFIG: Final = """
worker_processes auto;
daemon off;
pid {folder}/pid;
error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{body}'; }}
  }}
}}
"""


def missing() -> str:
    """What of the two is not on this machine, as text; empty where both are."""
    return " and ".join(name for name in ("nginx", "wrk") if shutil.which(name) is None)


@contextmanager
def running_nginx() -> Iterator[str]:
    """An nginx on a free port of the loopback; its URL, without a path.

    Raises:
        RuntimeError: it does not listen.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="nginx-bench-") as folder:
        path = Path(folder, "conf")
        path.write_text(_CONFIG.format(folder=folder, port=port, body=SMALL_BODY.decode()))
        process = subprocess.Popen([_found("nginx"), "-c", str(path), "-p", folder])
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def requests_per_s(url: str, connections: int, seconds: float) -> float:
    """What wrk gets from `url` with one thread.

    Raises:
        RuntimeError: it failed, or an answer was no 2xx.
    """
    command = [_found("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return rate_told(done.stdout)


def rate_told(text: str) -> float:
    """The requests/s in the words of wrk.

    Raises:
        RuntimeError: there are none, or an answer was no 2xx.
    """
    rate = _RATE.search(text)
    if rate is None or _FAULTS.search(text):
        raise RuntimeError(f"wrk: {text.strip() or 'no words'}")
    return float(rate[1])


def _found(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, "ask `missing` first"
    return path


def _wait_for(port: int) -> None:
    end_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end_s:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1.0)):
            return
        time.sleep(0.05)
    raise RuntimeError("nginx does not listen")
