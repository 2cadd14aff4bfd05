"""Every limit of the wire protocol in one place, in bytes, counts or seconds.

The relations between them are asserted at import: a change that breaks one fails everywhere.
"""

from typing import Final

LENGTH_PREFIX_BYTES: Final = 4
"""The big-endian u32 in front of a frame; it counts the type byte and the FlatBuffer."""

FRAME_HEADER_BYTES: Final = LENGTH_PREFIX_BYTES + 1
"""Length prefix and type byte."""

MAX_ANSWER_FRAME_BYTES: Final = 10_485_760
"""Longest answer (as the length prefix counts): the published SDKs refuse a longer one."""

MAX_REQUEST_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Longest request accepted by default; the Java SDK alone sends up to 10,485,761."""

MAX_FLATBUFFER_BYTES: Final = 2**31 - 1
"""FlatBuffers offsets are signed 32-bit numbers."""

MAX_HEADER_PAIRS: Final = 4096
"""KeyValue pairs in one message: far above what a 64 KiB header block can hold in practice."""

MAX_VTABLE_SLOTS: Final = 1024
"""Slots that a vtable may declare; ours use 14, newer peers may append."""

MAX_IN_FLIGHT_REQUESTS: Final = 256
"""Requests of one connection under way at once."""

INITIAL_STREAM_WINDOW_BYTES: Final = 65_536
"""Credit of a stream and direction before any CreditUpdate (HTTP/2's figure)."""

INITIAL_CONNECTION_WINDOW_BYTES: Final = 1_048_576
"""Credit of a connection and direction before any CreditUpdate."""

MAX_WINDOW_BYTES: Final = 2**31 - 1
"""A window that would grow past this is a protocol error (RFC 9113 section 6.9.1's figure)."""

UNFINISHED_FRAME_TIMEOUT_S: Final = 30.0
"""A frame that was begun and then got no byte for so long ends the connection."""

KEEP_ALIVE_INTERVAL_S: Final = 15.0
"""Silence on a stream after which the runtime sends KeepAlive."""

assert FRAME_HEADER_BYTES == LENGTH_PREFIX_BYTES + 1
assert MAX_ANSWER_FRAME_BYTES < MAX_REQUEST_FRAME_BYTES < MAX_FLATBUFFER_BYTES
assert INITIAL_STREAM_WINDOW_BYTES < INITIAL_CONNECTION_WINDOW_BYTES < MAX_WINDOW_BYTES
assert MAX_HEADER_PAIRS * 16 < MAX_REQUEST_FRAME_BYTES
