"""One large body: how fast it comes beside httpx, and what the runtime holds of it meanwhile.

Peer: `httpx.Client.stream` straight from the same upstream. Ours are `RuntimeClient.stream` and a
reader by hand, through the runtime. They take turns, each in a fresh process with a fresh runtime;
"x httpx" is the median of the ratios in a round. The time holds the opening of the connection.

Load shape: one body at a time, 256 MiB for the throughput.

Memory: 1 GiB to a reader that stands still for a while and then takes 64 MiB/s. The upstream makes
the bytes up. The figure is the peak of the runtime's resident size during the body over what it was
after one small call (/proc/PID/status: VmHWM), and memory does not jitter: it is measured once.

Cheating would be: a body that is compressed, or a reader that takes bytes without looking at their
number; a peak that leaves out what was freed in between; a slow reader that the sockets could hold.
"""

import time
from collections.abc import Iterator
from typing import Final, Literal

from benchmarks._processes import (
    Cores,
    cores,
    peak_bytes,
    reset_peak,
    resident_bytes,
    run_json,
    running_runtime,
    running_upstream,
)
from benchmarks._report import Claim, Options, Report, median, watch_others
from benchmarks._stream_lines import RuntimeLine
from benchmarks._stream_load import BodySample, BodySpec
from vastar_client.wire import StreamEnd

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "throughput of one large download beside httpx; memory of 1 GiB, read slowly"
DOWNLOAD_BYTES: Final = 256 * 1024 * 1024
SLOW_BYTES: Final = 1024 * 1024 * 1024
SLOW_BYTES_PER_S: Final = 64 * 1024 * 1024
STILL_S: Final = 1.0
WANTED_RATIO: Final = 0.5
WANTED_PEAK_BYTES: Final = 8_000_000
_SETTLE_S: Final = 0.5
_MIB: Final = 1024 * 1024
_UPSTREAM: Final = "benchmarks._stream_upstream"
_Who = Literal["httpx", "client", "by hand"]
WHO: Final[tuple[_Who, ...]] = ("httpx", "client", "by hand")


def run(options: Options) -> Report:
    """Measure the throughput in turns, then the memory."""
    report = Report("large_download", [])
    where = cores(pin=options.pin)
    rates: dict[_Who, list[float]] = {who: [] for who in WHO}
    with watch_others(report):
        for _ in range(options.rounds):
            for who in WHO:
                rates[who].append(_rate(who, where))
        over_bytes = _peak_over_idle(where)
    for who in WHO:
        ratio = median([own / peer for own, peer in zip(rates[who], rates["httpx"], strict=True)])
        report.rows.append(
            {
                "who": who if who == "httpx" else f"runtime, {who}",
                "MiB": DOWNLOAD_BYTES / _MIB,
                "MiB/s": median(rates[who]),
                "x httpx": ratio,
            }
        )
        if who == "client":
            text = "throughput of one large download, x httpx"
            report.claims.append(Claim(text, ratio, WANTED_RATIO, at_most=False))
    text = f"MB over idle, {SLOW_BYTES // _MIB} MiB read slowly"
    report.claims.append(Claim(text, over_bytes / 1e6, WANTED_PEAK_BYTES / 1e6, at_most=True))
    return report


def _rate(who: _Who, where: Cores) -> float:
    """MiB/s of one download."""
    with (
        running_upstream(module=_UPSTREAM, core=where.other) as upstream,
        running_runtime(core=where.measured) as runtime,
    ):
        url = f"{upstream}/bytes/{DOWNLOAD_BYTES}"
        spec = BodySpec(who, url, DOWNLOAD_BYTES, runtime.socket_path)
        sample = run_json("benchmarks._stream_load", spec, BodySample, core=where.other)
    return DOWNLOAD_BYTES / _MIB / sample.seconds


def _peak_over_idle(where: Cores) -> int:
    """How far a body that is read slowly lifts the resident size."""
    with (
        running_upstream(module=_UPSTREAM, core=where.other) as upstream,
        running_runtime(core=where.measured) as runtime,
    ):
        line = RuntimeLine(runtime.socket_path)
        assert sum(_sizes(line, 1, f"{upstream}/bytes/1")) == 1
        time.sleep(_SETTLE_S)
        before_bytes = resident_bytes(runtime.pid)
        reset_peak(runtime.pid)
        taken_bytes = 0
        began_s = time.monotonic()
        for size in _sizes(line, 2, f"{upstream}/bytes/{SLOW_BYTES}"):
            # Credit is given back behind this: the reader is as slow as it sleeps.
            taken_bytes += size
            due_s = began_s + STILL_S + taken_bytes / SLOW_BYTES_PER_S
            time.sleep(max(0.0, due_s - time.monotonic()))
        if taken_bytes != SLOW_BYTES:
            raise RuntimeError(f"{taken_bytes} bytes came, and not {SLOW_BYTES}")
        over_bytes = peak_bytes(runtime.pid) - before_bytes
        line.socket.close()
    return over_bytes


def _sizes(line: RuntimeLine, request_id: int, url: str) -> Iterator[int]:
    """The size of each chunk of a body, as it comes."""
    line.ask(request_id, url)
    while True:
        for frame in line.take():
            if isinstance(frame, StreamEnd):
                return
            yield len(frame.data or b"")
