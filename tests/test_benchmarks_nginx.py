"""The ceiling of the benchmarks: what can be tested of it without nginx and wrk."""

import shutil

import pytest

from benchmarks import closed_loop
from benchmarks._nginx import missing, rate_told
from benchmarks._report import Options, Report

TOLD = "  10 requests in 2.00s\nRequests/sec:  130123.45\nTransfer/sec: 1.00MB\n"


def test_the_rate_is_read_from_the_words_of_wrk() -> None:
    assert rate_told(TOLD) == 130123.45


@pytest.mark.parametrize("text", ["", "unable to connect", TOLD + "  Non-2xx or 3xx responses: 1"])
def test_words_without_a_good_rate_are_refused(text: str) -> None:
    with pytest.raises(RuntimeError, match="wrk"):
        rate_told(text)


def test_what_is_absent_is_told_in_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "wrk" else "/bin/nginx")
    assert missing() == "wrk"
    report = Report("closed_loop", [])
    closed_loop._judge_ratio(report, Options())
    assert report.notes == ["not held against nginx driven by wrk: no wrk on this machine"]
    assert not report.claims
