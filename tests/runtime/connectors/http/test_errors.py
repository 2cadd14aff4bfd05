"""One exception for whatever a caller may have got wrong: no payload ends in any other."""

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from tests.support.running import http_request
from vastar_client.wire import PayloadFormat
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.preparing import Preparer
from vastar_runtime.policy import Deadline, Limit

texts = st.text(max_size=20)
urls = st.sampled_from(["http://h.test/", "https://u:p@h.test:8/p?q#f", "http://[::1]/"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
payloads = st.fixed_dictionaries(
    {"url": urls | texts | texts.map("http://{}".format) | values},
    optional={
        "method": st.sampled_from(["GET", "post"]) | values,
        "headers": st.dictionaries(texts, texts, max_size=3) | values,
        "body": values,
        "body_base64": texts | values,
        "query": st.dictionaries(texts, values, max_size=3) | values,
        "timeout_ms": st.integers() | values,
        "follow_redirects": values,
        "decode_content": values,
    },
)


def prepare(data: bytes, payload_format: PayloadFormat, **fields: str) -> None:
    preparer = Preparer("", lambda: 1)
    message = http_request(1, data, payload_format=payload_format, **fields)
    call = Call(message, Caller(), Deadline(1e9, 1, Limit.DEFAULT), 1000)
    with suppress(InvalidCall):
        plan, request = preparer.prepare(call)
        assert preparer.prepare(call) == (plan, request), "what is known is not made otherwise"
        assert request.target.startswith(b"/")
        assert all(b"\r" not in value and b"\n" not in value for _, value in request.headers)
        assert [name for name, _ in request.headers].count(b"host") == 1
        assert plan.call.timeout_ms >= 0


@given(payload=payloads, trace_id=texts, key=texts)
def test_any_json_becomes_a_request_or_an_invalid_call(payload, trace_id, key):
    data = json.dumps(payload).encode()
    prepare(data, PayloadFormat.JSON, trace_id=trace_id, idempotency_key=key)


@given(payload=payloads, cuts=st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3))))
def test_so_does_spoiled_json(payload, cuts):
    data = json.dumps(payload, ensure_ascii=False).encode(errors="surrogatepass")
    for at, piece in cuts:
        place = at % (len(data) + 1)
        data = data[:place] + piece + data[place + 1 :]
    prepare(data, PayloadFormat.JSON)


@given(st.binary(max_size=200))
def test_so_does_any_native_payload(data):
    prepare(data, PayloadFormat.NATIVE)


def test_it_says_what_it_was_made_with():
    assert str(InvalidCall("Missing required field: url")) == "Missing required field: url"
