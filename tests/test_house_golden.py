"""The golden frames are whole and agree with the generated code, which nobody of us wrote."""

import pytest

from tests.support import golden
from vastar_client.wire import _generated

FRAMES = golden.load()


@pytest.mark.parametrize("frame", FRAMES, ids=lambda f: f.name)
def test_a_frame_is_whole_and_reads_as_its_index_says(frame: golden.GoldenFrame) -> None:
    assert int.from_bytes(frame.frame[:4], "big") == len(frame.frame) - 4
    assert frame.frame[4] == frame.message_type
    kind = _generated.ExecuteRequest if frame.is_request else _generated.ExecuteResponse
    table = kind.GetRootAs(frame.flatbuffer)
    assert table.RequestId() == frame.fields["request_id"]
    payload = bytes(table.Payload(i) for i in range(table.PayloadLength()))
    assert len(payload) == frame.payload_bytes
    if frame.payload is not None:
        assert payload.decode() == frame.payload
    if frame.is_request:
        assert table.ConnectorName().decode() == frame.fields["connector_name"]
        assert table.DeadlineAtMs() == frame.fields["deadline_at_ms"]
    else:
        assert table.ErrorClass() == frame.fields["error_class"]
        assert table.DurationUs() == frame.fields["duration_us"]


def test_every_request_but_the_abandoned_one_has_its_answer() -> None:
    pairs = golden.exchanges()
    assert len(pairs) == 53
    unanswered = [request.name for request, answer in pairs if answer is None]
    assert unanswered == ["python.client_timeout_400.req01"]
