"""How many events a second the LLM simulator gives, so that no test blames it wrongly.

The simulator runs as a process of its own; this process is the load: plain non-blocking sockets
under one selector, which count events and parse nothing else, so that the simulator is what is
measured. Three rows: all streams flat out; the same streams paced to the wanted rate; and plain
answers on kept-alive connections. CPU time of the simulator comes from /proc (Linux); elsewhere
that column is left out.

    python benchmarks/simulator_capacity.py [--streams 200] [--rate 10000] [--seconds 5]

Peer: the wanted rate, which the paced row is held against.
Load shape: as many readers as streams, which never wait with reading.
Cheating would be: counting events that were sent and not received; pacing that drops the late.
"""

import argparse
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent
MARK = b"data: "
END_OF_STREAM = b"\r\n0\r\n\r\n"
WORDS_FLAT_OUT = 3_000


@attrs.define
class Load:
    """What one run of the load saw. `done` counts finished answers."""

    events: int = 0
    done: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0

    @property
    def took_s(self) -> float:
        """Wall time from the first byte sent to the last received."""
        return self.ended_s - self.started_s


@attrs.frozen
class Server:
    """A running simulator."""

    address: tuple[str, int]
    pid: int

    def cpu_s(self) -> float | None:
        """CPU time so far, or None where /proc is not to be had."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def simulator(*flags: str) -> Iterator[Server]:
    """A simulator process on a free port, ended with the block."""
    command = [sys.executable, "-m", "tools.llm_simulator", "--port", "0", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
        if ready is None:
            raise SystemExit("the simulator did not start; its error is above")
        yield Server((ready[1], int(ready[2])), process.pid)
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def chat_request(headers: dict[str, str]) -> bytes:
    """The bytes of a streaming chat request."""
    message = {"role": "user", "content": "How much can you say at once?"}
    body = json.dumps({"model": "m", "stream": True, "messages": [message]}).encode()
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{''.join(lines)}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def run_streams(server: Server, count: int, request: bytes) -> Load:
    """`count` streams side by side, each read to its end."""
    load = Load()
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            selector.register(connected(server), selectors.EVENT_READ, [b""])
        load.started_s = time.perf_counter()
        for key in list(selector.get_map().values()):
            socket_of(key).sendall(request)
        while selector.get_map():
            for key, _events in selector.select():
                if read_events(key, load):
                    selector.unregister(key.fileobj)
                    socket_of(key).close()
        load.ended_s = time.perf_counter()
    return load


def read_events(key: selectors.SelectorKey, load: Load) -> bool:
    """Count what came; whether the stream has ended. `key.data[0]` is the tail of the last read."""
    data = socket_of(key).recv(262_144)
    if not data:
        raise SystemExit("the simulator broke a stream off")
    joined = key.data[0] + data
    # The tail kept back is shorter than the mark, so that no mark is counted twice.
    load.events += joined.count(MARK)
    key.data[0] = joined[-len(MARK) + 1 :]
    ended = (joined if len(data) < len(END_OF_STREAM) else data).endswith(END_OF_STREAM[2:])
    load.done += ended
    return ended


def run_plain(server: Server, connections: int, seconds: float) -> Load:
    """Closed loop of `POST /test_completion`, one request at a time on each connection."""
    request = b"POST /test_completion HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    load = Load()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            selector.register(connected(server), selectors.EVENT_READ)
        load.started_s = time.perf_counter()
        for key in list(selector.get_map().values()):
            socket_of(key).sendall(request)
        while time.perf_counter() - load.started_s < seconds:
            for key, _events in selector.select():
                # One answer is far smaller than a segment of loopback: one read is one answer.
                socket_of(key).recv(65_536)
                socket_of(key).sendall(request)
                load.done += 1
        load.ended_s = time.perf_counter()
        for key in list(selector.get_map().values()):
            socket_of(key).close()
    return load


def connected(server: Server) -> socket.socket:
    """A connection to the simulator without Nagle's delay."""
    link = socket.create_connection(server.address)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def socket_of(key: selectors.SelectorKey) -> socket.socket:
    """The socket that was registered."""
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def report(name: str, count: int, unit: str, load: Load, cpu_s: float | None) -> None:
    """One row: the rate, and what it cost the simulator."""
    cost = "" if cpu_s is None else f"{cpu_s / count * 1e6:9.1f} us CPU each"
    busy = "" if cpu_s is None else f"{cpu_s / load.took_s:7.0%} of a core"
    print(f"{name:34}{count / load.took_s:10,.0f} {unit}/s{cost}{busy}")


def measured_streams(name: str, server: Server, count: int, headers: dict[str, str]) -> float:
    """Run and report streams; events a second."""
    before_s = server.cpu_s()
    load = run_streams(server, count, chat_request(headers))
    after_s = server.cpu_s()
    spent_s = None if before_s is None or after_s is None else after_s - before_s
    report(name, load.events, "events", load, spent_s)
    return load.events / load.took_s


def main() -> int:
    """Measure and print; 1 when the paced streams stayed below 95% of the wanted rate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=200, help="streams at once (200)")
    parser.add_argument("--rate", type=float, default=10_000, help="events/s wanted in all (10000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a paced run (5)")
    flags = parser.parse_args()
    delay_s = flags.streams / flags.rate
    with simulator() as server:
        flat = {"x-sim-words": str(WORDS_FLAT_OUT)}
        measured_streams(f"{flags.streams} streams flat out", server, flags.streams, flat)
        # A word is about half an event of ten bytes: enough words to last the wanted time.
        words = round(flags.seconds / delay_s * 2)
        paced = {"x-sim-words": str(words), "x-sim-event-delay-s": f"{delay_s:.6f}"}
        name = f"{flags.streams} streams, 1 event per {delay_s * 1000:.0f} ms each"
        rate = measured_streams(name, server, flags.streams, paced)
        before_s = server.cpu_s()
        load = run_plain(server, 16, flags.seconds)
        after_s = server.cpu_s()
        spent_s = None if before_s is None or after_s is None else after_s - before_s
        report("plain answers, 16 connections", load.done, "answers", load, spent_s)
    reached = rate >= 0.95 * flags.rate
    print(f"paced: {rate:,.0f} of {flags.rate:,.0f} events/s: {'held' if reached else 'NOT held'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
