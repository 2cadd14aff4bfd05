"""What one message costs: our codec beside the generated accessors and Builder, in one run.

    python -m benchmarks.codec_cost [--rounds N] [--payload BYTES]

Shape: each round times every contestant once, one after another, so that a change of the machine's
speed meets all of them; the median over the rounds is printed in microseconds a message. A decode
reads every field of a typical message, as a session does; ours also checks it, which the generated
code cannot. An encode ends with what is handed to the socket: buffers of ours, one array of theirs.

Peer: the accessors and the Builder that the FlatBuffers compiler generates, on the same messages.
Cheating would be: reading only some fields with ours and all with theirs, messages without their
usual fields, or an encode that leaves out what the other end has to be given.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from tests.support import generated_peer
from vastar_client import wire
from vastar_client.wire import codec

__all__ = ["main"]

_CALLS_PER_ROUND = 500
_URL_PAYLOAD = b'{"method":"GET","url":"http://127.0.0.1:4600/echo?a=1"}'


def _request(payload: bytes) -> wire.ExecuteRequest:
    return wire.ExecuteRequest(
        request_id=1_795_331_754_240,
        tenant_id="default",
        connector_name="http",
        operation="request",
        workspace_id="main",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        deadline_at_ms=1_795_331_814_240,
        payload=payload,
    )


def _response(payload: bytes) -> wire.ExecuteResponse:
    return wire.ExecuteResponse(
        request_id=1_795_331_754_240,
        payload=payload,
        duration_us=560,
        disposition=wire.Disposition.COMPLETED,
        attempts=1,
        queued_us=12,
    )


def _contestants(payload: bytes) -> dict[str, dict[str, Callable[[], object]]]:
    """By row: what is timed, ours beside theirs."""
    request, response = _request(payload), _response(payload)
    request_bytes = b"".join(codec.encode_message(request))
    response_bytes = b"".join(codec.encode_message(response))
    return {
        "decode ExecuteRequest": {
            "ours": lambda: codec.decode_message(request.TYPE, request_bytes),
            "generated": lambda: generated_peer.access_request(request_bytes),
        },
        "encode ExecuteRequest": {
            "ours": lambda: codec.encode_message(request),
            "generated": lambda: generated_peer.build_request(request, payload),
        },
        "decode ExecuteResponse": {
            "ours": lambda: codec.decode_message(response.TYPE, response_bytes),
            "generated": lambda: generated_peer.access_response(response_bytes),
        },
        "encode ExecuteResponse": {
            "ours": lambda: codec.encode_message(response),
            "generated": lambda: generated_peer.build_response(response, payload),
        },
    }


def _time_us(call: Callable[[], object]) -> float:
    """Microseconds of one call, over one round."""
    begun = time.perf_counter()
    for _ in range(_CALLS_PER_ROUND):
        call()
    return (time.perf_counter() - begun) / _CALLS_PER_ROUND * 1e6


def main() -> None:
    """Print one line per message and direction."""
    parser = argparse.ArgumentParser(description="the cost of one message, ours beside generated")
    parser.add_argument("--rounds", type=int, default=41, help="rounds to take the median of")
    parser.add_argument(
        "--payload", type=int, default=len(_URL_PAYLOAD), help="bytes of payload (default: a GET)"
    )
    arguments = parser.parse_args()
    payload = (_URL_PAYLOAD * (arguments.payload // len(_URL_PAYLOAD) + 1))[: arguments.payload]
    rows = _contestants(payload)
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for row, calls in rows.items():
            for name, call in calls.items():
                times.setdefault((row, name), []).append(_time_us(call))
    print(f"us a message, median of {arguments.rounds} rounds, payload {len(payload)} bytes")
    print(f"{'':24}{'ours':>9}{'generated':>12}{'ratio':>8}")
    for row in rows:
        ours, generated = (statistics.median(times[row, name]) for name in ("ours", "generated"))
        print(f"{row:24}{ours:9.2f}{generated:12.2f}{generated / ours:7.1f}x")


if __name__ == "__main__":
    main()
