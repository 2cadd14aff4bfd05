"""Trace ids on their way upstream: W3C where they are that, and never a way into other headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.connectors.http.tracing import trace_header

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
FULL = f"00-{TRACE}-{PARENT}-01"


def header(trace_id: str, random_u64: int = 0xABC) -> tuple[bytes, bytes]:
    return trace_header(trace_id, lambda: random_u64)


@pytest.mark.parametrize(
    "trace_id",
    [FULL, f"00-{TRACE}-{PARENT}-00", f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-ff-later.x"],
)
def test_a_traceparent_goes_as_it_is(trace_id):
    assert header(trace_id) == (b"traceparent", trace_id.encode())


def test_upper_case_is_made_lower_as_the_standard_wants():
    assert header(FULL.upper()) == (b"traceparent", FULL.encode())
    assert header(TRACE.upper())[1].startswith(f"00-{TRACE}-".encode())


def test_32_hex_digits_get_a_parent_of_ours():
    assert header(TRACE) == (b"traceparent", f"00-{TRACE}-0000000000000abc-01".encode())
    assert header(TRACE, 2**64 - 1)[1] == f"00-{TRACE}-ffffffffffffffff-01".encode()


def test_a_parent_is_never_all_zeros():
    assert header(TRACE, 0)[1] == f"00-{TRACE}-0000000000000001-01".encode()


@pytest.mark.parametrize(
    "trace_id",
    [
        "tr-1",
        "0" * 32,
        TRACE[:-1],
        TRACE + "0",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"{FULL}-later",  # version 00 has nothing behind the flags
        f"{TRACE[:-1]}g",
        "a b/c?d=e%41",
    ],
)
def test_any_other_text_goes_as_x_trace_id(trace_id):
    assert header(trace_id) == (b"x-trace-id", trace_id.encode())


@pytest.mark.parametrize(
    ("trace_id", "sent"),
    [
        ("a\r\nx: y", b"a%0D%0Ax: y"),
        ("é", b"%C3%A9"),
        ("\0\x7f\t", b"%00%7F%09"),
        (f"{FULL}\n", f"{FULL}%0A".encode()),
        (f"{TRACE}\n", f"{TRACE}%0A".encode()),
        (f"01-{TRACE}-{PARENT}-01-x\ry", f"01-{TRACE}-{PARENT}-01-x%0Dy".encode()),
        (f"01-{TRACE}-{PARENT}-01-\0", f"01-{TRACE}-{PARENT}-01-%00".encode()),
        (f"01-{TRACE}-{PARENT}-01-é", f"01-{TRACE}-{PARENT}-01-%C3%A9".encode()),
        (" a ", b"a"),
        ("x" * 100_000, b"x" * 512),
    ],
)
def test_what_a_header_cannot_hold_is_encoded_and_bounded(trace_id, sent):
    assert header(trace_id) == (b"x-trace-id", sent)


@given(st.text() | st.text().map(lambda tail: f"01-{TRACE}-{PARENT}-01-{tail}"))
def test_no_trace_id_leaves_its_line(trace_id):
    name, value = header(trace_id)
    assert name in {b"traceparent", b"x-trace-id"}
    assert all(32 <= byte < 127 for byte in value)
    assert len(value) < 2000
