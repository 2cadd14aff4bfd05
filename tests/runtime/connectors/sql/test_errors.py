"""SQLSTATEs and SQLite's codes, as kinds of failures and as evidence."""

import pytest

from vastar_runtime.connectors.sql.errors import (
    Blame,
    SqlError,
    blame_of_sqlite,
    blame_of_sqlstate,
    meaning_of,
    short,
)
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import Retry


@pytest.mark.parametrize(
    ("sqlstate", "blame"),
    [
        ("23505", Blame.DATA),
        ("42601", Blame.CALLER),
        ("40001", Blame.ROLLED_BACK),
        ("40P01", Blame.ROLLED_BACK),
        ("40002", Blame.DATA),
        ("57014", Blame.TIMEOUT),
        ("57P01", Blame.LOST),
        ("57P03", Blame.UNREACHABLE),
        ("53300", Blame.UNREACHABLE),
        ("53100", Blame.BUSY),
        ("55P03", Blame.BUSY),
        ("25006", Blame.CALLER),
        ("XX000", Blame.SERVER),
        ("ZZ999", Blame.SERVER),
        (None, Blame.LOST),
    ],
)
def test_sqlstates(sqlstate, blame):
    assert blame_of_sqlstate(sqlstate) is blame


@pytest.mark.parametrize(
    ("code", "blame"),
    [
        ("SQLITE_CONSTRAINT_UNIQUE", Blame.DATA),
        ("SQLITE_BUSY", Blame.BUSY),
        ("SQLITE_BUSY_SNAPSHOT", Blame.BUSY),
        ("SQLITE_INTERRUPT", Blame.TIMEOUT),
        ("SQLITE_CANTOPEN_ISDIR", Blame.UNREACHABLE),
        ("SQLITE_CORRUPT", Blame.SERVER),
        ("SQLITE_ERROR", Blame.CALLER),
    ],
)
def test_codes_of_sqlite(code, blame):
    assert blame_of_sqlite(code) is blame


def test_every_blame_has_a_kind():
    for blame in Blame:
        assert isinstance(SqlError(blame, "no").kind, FailureKind)


@pytest.mark.parametrize(
    ("blame", "unsafe", "safe", "host", "tenant"),
    [
        (Blame.CALLER, Retry.NEVER, Retry.NEVER, Evidence.SUCCESS, Evidence.ANSWERED),
        (Blame.DATA, Retry.NEVER, Retry.NEVER, Evidence.SUCCESS, Evidence.ANSWERED),
        (Blame.ROLLED_BACK, Retry.NEVER, Retry.TRANSIENT, Evidence.SUCCESS, Evidence.ANSWERED),
        (Blame.BUSY, Retry.NEVER, Retry.TRANSIENT, Evidence.SUCCESS, Evidence.FAILURE),
        (Blame.SERVER, Retry.NEVER, Retry.NEVER, Evidence.SUCCESS, Evidence.FAILURE),
        (Blame.LOST, Retry.NEVER, Retry.TRANSIENT, Evidence.NO_ANSWER, Evidence.NONE),
        (Blame.TIMEOUT, Retry.NEVER, Retry.TRANSIENT, Evidence.NONE, Evidence.NO_ANSWER),
    ],
)
def test_what_an_end_means(blame, unsafe, safe, host, tenant):
    for is_safe, retry in ((False, unsafe), (True, safe)):
        error = SqlError(blame, "no")
        meaning, result = meaning_of(error, Disposition.SENT_NO_RESPONSE, is_safe=is_safe)
        assert (meaning.retry, meaning.host, meaning.tenant) == (retry, host, tenant)
        assert result is not None


def test_what_was_not_sent_is_tried_again_by_itself():
    error = SqlError(Blame.UNREACHABLE, "no", Disposition.NOT_SENT)
    meaning, _ = meaning_of(error, Disposition.NOT_SENT, is_safe=False)
    assert meaning.retry is Retry.TRANSIENT
    meaning, result = meaning_of(None, Disposition.COMPLETED, is_safe=False)
    assert meaning.is_clean
    assert result is None


def test_words_are_on_one_line():
    assert short(" a\n  b ") == "a b"
    assert len(short("x" * 1000)) == 300


def test_what_a_database_says_is_for_the_caller_and_not_for_the_log():
    error = SqlError.said(Blame.DATA, 'value "hunter2" is out of range', "SQLSTATE 22003")
    assert error.words == 'value "hunter2" is out of range (SQLSTATE 22003)'
    assert error.logged == "the data refuse the statement (SQLSTATE 22003)"
    assert SqlError.said(Blame.CALLER, "near hunter2").logged == (
        "the statement or a parameter is refused"
    )
    for blame in Blame:
        assert SqlError.said(blame, "x").logged
    assert SqlError(Blame.TIMEOUT, "the time passed").logged == "the time passed"
