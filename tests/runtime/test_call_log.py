"""The line of a call is the same, whichever way it takes, and never holds a secret."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.log_lines import log_lines
from vastar_runtime import call_log, logs
from vastar_runtime.call_log import CallLine, write_call

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "acme",
            "http://api.test",
            "https://api.openai.com:8443",
            "http://me:planted-pass@h.test/?api_key=planted",
            "Bearer planted-token-123456",
            "sk-planted1234567890abcdef",
            "x" * 9000,
            "\ud800",
            "line\nbreak",
        ]
    ),
)
NUMBERS = st.integers(0, 2**63)


@st.composite
def call_lines(draw: st.DrawFn) -> CallLine:
    line = CallLine(
        trace_id=draw(TEXTS),
        tenant=draw(TEXTS),
        workspace=draw(TEXTS),
        request_id=draw(NUMBERS),
        connection=draw(NUMBERS),
        connector=draw(TEXTS),
        origin=draw(TEXTS),
        status=draw(st.integers(0, 999)),
        error_class=draw(st.sampled_from(["SUCCESS", "GONE"])),
        disposition="COMPLETED",
        sent_bytes=draw(NUMBERS),
        received_bytes=draw(NUMBERS),
        duration_us=draw(NUMBERS),
        first_byte_us=draw(st.none() | NUMBERS),
        connect_us=draw(st.none() | NUMBERS),
    )
    if draw(st.booleans()):
        line.reason = draw(TEXTS)
    if draw(st.booleans()):
        line.refused_by = "bulkhead:tenant"
        line.attempts, line.backoff_us, line.queued_us = 2, draw(NUMBERS), draw(NUMBERS)
    return line


@given(call_lines())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same_line_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: CallLine
) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    identity = {"trace_id": line.trace_id, "tenant": line.tenant, "workspace": line.workspace}
    with log_lines(tmp_path) as lines, logs.call_context(**identity):
        write_call(line)
        write_call(line)  # known now, where it is harmless
        with monkeypatch.context() as patch:
            patch.setattr(logs, "json_sink", lambda: None)
            write_call(line)
        first, again, slow = lines()
    assert [*first] == [*slow]
    for each in (first, again, slow):
        assert str(each.pop("timestamp")).startswith("20")
    assert first == again == slow
    assert "planted" not in repr(first)


def test_a_failure_and_a_console_line_go_through_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_lines(tmp_path) as lines:
        assert logs.json_sink() is not None
        logs.reconfigure("warning", "json")
        assert logs.json_sink() is None
        logs.reconfigure("info", "console")
        assert logs.json_sink() is None
        logs.reconfigure("debug", "json")
        assert logs.json_sink() is logs.sink()
        assert lines() == []


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(call_log, "_MAX_KNOWN", 3)
    call_log._known.clear()
    for number in range(10):
        assert call_log._become_known((f"tenant {number}", "", "http", "http://h.test"))
    assert len(call_log._known) <= 3
