"""How the caller's trace id travels upstream.

W3C Trace Context: a `traceparent` is `version-traceid-parentid-flags` in lower-case hex, neither
id all zeros. A bare trace id of 32 hex digits becomes one, with a parent id of our own; any other
text goes as `x-trace-id`, percent-encoded where a header could not hold it.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

__all__ = ["trace_header"]

_IDS: Final = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT: Final = re.compile(
    # Versions to come may have more behind the flags (section 3.2.4); 00 has not.
    rf"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(?:-[!-~]{{0,400}})?"
)
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_MAX_TRACE_ID_CHARACTERS: Final = 512
_VISIBLE: Final = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|} "


def trace_header(trace_id: str, random_u64: Callable[[], int]) -> tuple[bytes, bytes]:
    """The header that carries `trace_id`; `random_u64` gives a parent id (0 to 2^64-1)."""
    lowered = trace_id.lower()
    if _TRACEPARENT.fullmatch(lowered):
        return b"traceparent", lowered.encode()
    if _TRACE_ID.fullmatch(lowered):
        return b"traceparent", f"00-{lowered}-{random_u64() or 1:016x}-01".encode()
    shown = quote(trace_id[:_MAX_TRACE_ID_CHARACTERS], safe=_VISIBLE, errors="replace")
    return b"x-trace-id", shown.strip().encode()
