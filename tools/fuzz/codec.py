"""The codec under coverage-guided fuzzing: ours against the generated code.

Needs the extra `fuzz` (atheris). What our reader takes, the generated accessors must read as the
same values; what it refuses it refuses with its own error and no other. The first byte of an input
is the type. The options are those of libFuzzer:

    python -m tools.fuzz.codec [CORPUS] [-runs=1000000] [-max_total_time=60]
"""

import importlib
import sys
from typing import Any, Final

from vastar_client.wire import MessageType, RemoteProtocolError
from vastar_client.wire.codec import decode_message

__all__ = ["check", "main"]

_TABLES: Final = {
    MessageType.EXECUTE_REQUEST: "ExecuteRequest",
    MessageType.EXECUTE_RESPONSE: "ExecuteResponse",
    MessageType.HEALTH_RESPONSE: "HealthCheckResponse",
    MessageType.CREDIT_UPDATE: "CreditUpdate",
    MessageType.STREAM_START: "StreamStart",
    MessageType.STREAM_CHUNK: "StreamChunk",
    MessageType.STREAM_END: "StreamEnd",
    MessageType.CANCEL: "Cancel",
    MessageType.GOAWAY: "Goaway",
    MessageType.REQUEST_CHUNK: "RequestChunk",
    MessageType.KEEP_ALIVE: "KeepAlive",
    MessageType.AUTHENTICATE: "Authenticate",
}
_KINDS: Final = tuple(_TABLES)


def check(data: bytes) -> bool:
    """Hold one input against both readers; whether ours took it.

    Raises:
        AssertionError: they differ.
    """
    if not data:
        return False
    kind = _KINDS[data[0] % len(_KINDS)]
    try:
        ours = decode_message(kind, data[1:])
    except RemoteProtocolError:
        return False
    generated: Any = importlib.import_module("vastar_client.wire._generated")
    theirs = getattr(generated, _TABLES[kind]).GetRootAs(data[1:])
    for name in ours.__struct_fields__:
        mine = getattr(ours, name)
        accessor = "".join(part.capitalize() for part in name.split("_"))
        if name in {"headers", "trailers", "payload", "data"}:
            count = getattr(theirs, f"{accessor}Length")()
            assert count == (0 if mine is None else len(mine)), (name, count)
            continue
        said = getattr(theirs, accessor)()
        said = said.decode() if isinstance(said, bytes) else said
        assert said == mine, (name, said, mine)
    return True


def main() -> None:
    """Fuzz until libFuzzer's options say stop."""
    atheris: Any = importlib.import_module("atheris")
    atheris.instrument_func(check)
    for module in ("_reading", "codec"):
        for value in vars(importlib.import_module(f"vastar_client.wire.{module}")).values():
            if callable(value) and hasattr(value, "__code__"):
                atheris.instrument_func(value)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
