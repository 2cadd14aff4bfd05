"""One line for each refusal, to its own file or the log, bounded, and without secrets."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from vastar_runtime import audit, logs
from vastar_runtime.audit import MAX_LINES_PER_SECOND, AuditLog
from vastar_runtime.log_sink import LineSink
from vastar_runtime.runtime_files import RuntimeFileError


@attrs.frozen
class Somebody:
    connection_id: int = 7
    uid: int | None = 1000
    gid: int | None = 100
    pid: int | None = 42
    address: str | None = None


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(path: Path, clock: Clock) -> Iterator[AuditLog]:
    made = AuditLog(str(path), clock)
    yield made
    made.close()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_who_wanted_what_and_why_not(log: AuditLog, path: Path) -> None:
    log.write(
        "tenant_refused",
        caller=Somebody(),
        tenant="acme",
        origin=None,
        rule="tenant:identity",
        reason="not allowed",
    )
    (line,) = read(path)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "audit": True,
        "event": "tenant_refused",
        "uid": 1000,
        "gid": 100,
        "pid": 42,
        "connection": 7,
        "tenant": "acme",
        "rule": "tenant:identity",
        "reason": "not allowed",
    }


def test_the_file_is_ours_alone_also_when_it_was_not(path: Path) -> None:
    path.write_text("")
    path.chmod(0o644)
    AuditLog(str(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["link", "directory", "missing"])
def test_what_is_no_file_of_ours_is_refused(path: Path, kind: str) -> None:
    if kind == "link":
        path.symlink_to(path.with_name("elsewhere"))
    elif kind == "directory":
        path = path / "missing" / "audit.jsonl"
    else:
        path.mkdir()
    with pytest.raises(RuntimeFileError):
        AuditLog(str(path))


def test_a_mode_that_cannot_be_set_is_told_and_nothing_stays_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(RuntimeFileError, match="mode cannot be set"):
        AuditLog(str(path))
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_secrets_and_terminal_codes_do_not_get_in(log: AuditLog, path: Path) -> None:
    log.write(
        "egress_refused",
        origin="https://me:planted-pass@h.test/?api_key=planted",
        token="planted",
        reason="Bearer planted-token-123456",
        tenant="\x1b[31mred\x9b\ud800\n",
    )
    text = path.read_text()
    assert "planted" not in text
    (line,) = read(path)
    assert line["tenant"] == "\x1b[31mred\\x9b\\ud800\n"  # the others JSON has escaped
    assert text.rstrip("\n").isprintable()
    assert "uid" not in line


def test_one_user_cannot_fill_the_disk_and_what_was_left_out_is_told(
    log: AuditLog, path: Path, clock: Clock
) -> None:
    for _ in range(MAX_LINES_PER_SECOND + 30):
        log.write("tenant_refused", caller=Somebody())
    assert len(read(path)) == MAX_LINES_PER_SECOND
    log.write("tenant_refused", caller=Somebody(uid=1001))
    log.write("drain", caller=Somebody())
    assert len(read(path)) == MAX_LINES_PER_SECOND + 2
    clock.now_s += 1
    log.write("tenant_refused", caller=Somebody())
    log.write("tenant_refused", caller=Somebody())
    last, after = read(path)[-2:]
    assert last["left_out"] == 30
    assert "left_out" not in after


def test_a_flood_over_tcp_hides_nobody_else(log: AuditLog, path: Path) -> None:
    def of(address: str) -> Somebody:
        return Somebody(uid=None, gid=None, pid=None, address=f"address {address}")

    for _ in range(MAX_LINES_PER_SECOND + 30):
        log.write("token_refused", caller=of("192.0.2.1"))
        log.write("connection_refused", who="address 192.0.2.1")
        log.write("egress_observed", tenant="noisy")
    log.write("token_refused", caller=of("192.0.2.2"))
    log.write("connection_refused", who="address 192.0.2.2")
    log.write("egress_observed", tenant="quiet")
    one, two, three = read(path)[-3:]
    assert (one["who"], two["who"], three["tenant"]) == (
        "address 192.0.2.2", "address 192.0.2.2", "quiet",
    )  # fmt: skip
    assert len(read(path)) == 3 * MAX_LINES_PER_SECOND + 3


def test_counting_is_bounded(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_MAX_COUNTED", 8)
    for uid in range(100):
        log.write("tenant_refused", caller=Somebody(uid=uid))
    assert len(log._seconds) <= 8


def test_configuring_opens_the_file_anew_and_a_bad_one_changes_nothing(path: Path) -> None:
    before = audit.use(AuditLog())
    try:
        audit.configure(str(path))
        audit.audit("one")
        path.rename(path.with_name("rotated"))
        audit.configure(str(path))
        audit.audit("two")
        with pytest.raises(RuntimeFileError):
            audit.configure(str(path / "no" / "file"))
        assert audit.current().path == str(path)
        audit.audit("three")
        audit.configure(None)
    finally:
        audit.use(before).close()
    assert [line["event"] for line in read(path.with_name("rotated"))] == ["one"]
    assert [line["event"] for line in read(path)] == ["two", "three"]


def test_without_a_file_of_its_own_it_is_in_the_log_whatever_its_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "log"
    with written.open("wb") as file:
        monkeypatch.setattr(logs, "_sink", LineSink(file.fileno()))
        AuditLog().write("drain", caller=Somebody(pid=None, connection_id=0))
    (line,) = read(written)
    assert (line["audit"], line["event"], line["uid"]) == (True, "drain", 1000)
    assert "pid" not in line
    assert "connection" not in line


def test_without_any_log_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_sink", None)
    AuditLog().write("drain")


def test_a_limit_is_told_once_a_minute_with_the_number_of_the_others(
    log: AuditLog, path: Path, clock: Clock
) -> None:
    for _ in range(1000):
        log.limit("rate_limit:tenant", Somebody(), "acme", origin="http://a.test")
    log.limit("rate_limit:tenant", Somebody(), "other")
    log.limit("rate_limit:tenant", Somebody(uid=1001), "acme")
    log.limit("rate_limit:tenant", Somebody(uid=None, address="10.0.0.1"), "acme")
    log.limit("memory:user", Somebody(), "acme")
    clock.now_s += 60
    for _ in range(2):
        log.limit("rate_limit:tenant", Somebody(), "acme")
    clock.now_s += 60
    log.limit("memory:user", Somebody(), "acme")
    told = [
        (line["rule"], line.get("uid"), line["tenant"], line.get("left_out")) for line in read(path)
    ]
    assert told == [
        ("rate_limit:tenant", 1000, "acme", None),
        ("rate_limit:tenant", 1000, "other", None),
        ("rate_limit:tenant", 1001, "acme", None),
        ("rate_limit:tenant", None, "acme", None),
        ("memory:user", 1000, "acme", None),
        ("rate_limit:tenant", 1000, "acme", 999),
        ("memory:user", 1000, "acme", None),
    ]
    assert {line["event"] for line in read(path)} == {"limit_refused"}


def test_limits_of_many_names_neither_fill_the_disk_nor_the_memory(
    log: AuditLog, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_MAX_COUNTED", 80)
    for number in range(100):
        log.limit("queue:tenant", Somebody(), f"t{number}")
    assert len(read(path)) == MAX_LINES_PER_SECOND
    assert len(log._minutes) <= 80
    clock.now_s += 60
    log.limit("queue:tenant", Somebody(), "t99")
    assert read(path)[-1]["left_out"] == 50
