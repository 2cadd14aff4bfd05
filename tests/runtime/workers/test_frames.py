"""Messages between supervisor and worker, whole and in pieces."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.config import RuntimeConfig, Setting, load_config
from vastar_runtime.workers.frames import (
    HEAD,
    MAX_FRAME_BYTES,
    Answer,
    Ask,
    Begin,
    Cut,
    Drain,
    FrameError,
    FrameReader,
    Go,
    Ready,
    Refused,
    decode,
    encode,
)

MESSAGES = [
    Ready(),
    Refused("no certificate"),
    Go(),
    Drain(),
    Cut(),
    Ask(1, "status", True),
    Answer(1, {"pid": 3, "pools": []}),
    Answer(2, fault="no"),
]


@given(st.lists(st.sampled_from(MESSAGES)), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages, data):
    stream = b"".join(map(encode, messages))
    reader, found = FrameReader(), []
    while stream:
        count = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:count])
        stream = stream[count:]
    assert found == messages


def test_a_configuration_survives(tmp_path):
    file = tmp_path / "vastar.toml"
    file.write_text(
        "[server]\nsocket_mode = 0o660\ntcp_also = ['5001']\n"
        "[defaults.breaker]\nslow_call_s = 2.5\n"
        "[tenants.acme.tenant_rate_limit]\nlimit = 5\nperiod_s = 1.5\n"
        "[tenants.acme.workspaces.x.retry]\nmode = 'off'\n"
        "[origins.'https://api.test'.bulkhead]\nadaptive = true\n"
    )
    config = load_config(
        file=str(file), environ={}, flags=[Setting("server.workers", "auto", "--workers")]
    ).config
    assert decode(encode(Begin(config))[HEAD.size :]) == Begin(config)
    asked = decode(encode(Ask(1, "check", config))[HEAD.size :])
    assert isinstance(asked, Ask)
    assert msgspec.convert(asked.about, RuntimeConfig) == config


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"type":"hello"}', b'{"type":"ask"}', b"\xff", b"[]"]
)
def test_what_is_no_message_is_an_error(body):
    with pytest.raises(FrameError, match="no message"):
        FrameReader().feed(HEAD.pack(len(body)) + body)


def test_too_long_is_refused_at_both_ends():
    with pytest.raises(FrameError, match="too long"):
        encode(Answer(1, "x" * MAX_FRAME_BYTES))
    with pytest.raises(FrameError, match="too long"):
        FrameReader().feed(HEAD.pack(MAX_FRAME_BYTES + 1))
