"""Calls to databases as messages, answers as rows, failures by the names of the DB-API."""

import pickle

import pytest

import vastar_client
from vastar_client import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    DatabaseError,
    DataError,
    Disposition,
    ErrorClass,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    QueryTimeout,
    RuntimeConfig,
)
from vastar_client import sql as sql_module
from vastar_client._calls import CallMaker
from vastar_client.sql import Rows, asked, database_error, results_of
from vastar_client.wire import ExecuteResponse, PayloadFormat
from vastar_client.wire.rows import SqlStatement, decode_request, encode_answer, to_block


@pytest.mark.parametrize(
    ("words", "error_class", "kind", "code"),
    [
        ("x (SQLSTATE 23505)", ErrorClass.PERMANENT, IntegrityError, "23505"),
        ("x (SQLSTATE 22012)", ErrorClass.PERMANENT, DataError, "22012"),
        ("x (SQLSTATE 42601)", ErrorClass.INVALID_REQUEST, ProgrammingError, "42601"),
        ("x (SQLSTATE 0A000)", ErrorClass.INVALID_REQUEST, NotSupportedError, "0A000"),
        ("x (SQLSTATE 40001)", ErrorClass.TRANSIENT, OperationalError, "40001"),
        ("x (SQLSTATE XX000)", ErrorClass.PERMANENT, InternalError, "XX000"),
        ("x (SQLITE_CONSTRAINT_UNIQUE)", ErrorClass.PERMANENT, IntegrityError, ...),
        ("connector mysql is not supported", ErrorClass.PERMANENT, NotSupportedError, ""),
        ("refused", ErrorClass.RATE_LIMITED, OperationalError, ""),
        ("late (SQLSTATE 57014)", ErrorClass.TIMEOUT, QueryTimeout, "57014"),
        ("other", ErrorClass.PERMANENT, DatabaseError, ""),
    ],
)
def test_errors(words, error_class, kind, code):
    told = ConnectorException(
        words, error_class, 7, disposition=Disposition.NOT_SENT, retry_after_ms=5, refused_by="a:b"
    )
    error = database_error(told)
    assert type(error) is kind
    assert isinstance(error, DatabaseError)
    assert code is ... or error.code == code
    assert (error.request_id, error.retry_after_ms, error.refused_by) == (7, 5, "a:b")
    assert error.error_class is error_class
    assert isinstance(pickle.loads(pickle.dumps(error)), kind)


def test_what_is_no_databases_error_stays_what_it_is():
    lost = ConnectionClosed("gone")
    assert database_error(lost) is lost
    assert isinstance(database_error(CallTimeout("late")), CallTimeout)


def test_messages():
    call = asked(
        "transaction",
        {"timeout_s": 2.5, "max_rows": 3, "idempotency_key": "k", "tenant_id": "t"},
        source="orders",
        statements=["a", ("b", [1]), ("c", {"n": 2})],
        isolation="serializable",
    )
    message = call.outgoing(CallMaker(RuntimeConfig()), call.own_timeout_ms()).message
    assert (message.connector_name, message.operation) == ("sql", "transaction")
    assert (message.tenant_id, message.idempotency_key) == ("t", "k")
    request = decode_request(message.payload)
    assert request.statements == [
        SqlStatement("a"),
        SqlStatement("b", [1]),
        SqlStatement("c", {"n": 2}),
    ]
    assert (request.source, request.max_rows, request.isolation) == ("orders", 3, "serializable")


@pytest.mark.parametrize("params", ["text", [object()], {"a": 1j}])
def test_parameters_that_are_none(params):
    with pytest.raises(ProgrammingError, match="cannot be sent"):
        asked("query", {}, source="", sql="x", params=params)


def test_rows():
    rows = Rows(to_block(["a", "b"], [(1, "x"), (2, "y")], 2))
    assert (len(rows), rows[0], rows[:1], list(rows)) == (
        2,
        (1, "x"),
        [(1, "x")],
        [(1, "x"), (2, "y")],
    )
    assert rows.dicts() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert repr(rows) == "<Rows 2 of a, b>"
    with pytest.raises(LookupError, match="2 rows"):
        rows.one()
    assert Rows(to_block(["a"], [(5,)])).scalar() == 5
    assert repr(Rows(to_block([], []))) == "<Rows 0 of no columns>"


def test_answers():
    payload = encode_answer([to_block(["a"], [(1,)])])
    answer = ExecuteResponse(1, payload=payload, payload_format=PayloadFormat.NATIVE)
    assert [list(rows) for rows in results_of(answer)] == [[(1,)]]
    with pytest.raises(InterfaceError, match="cannot be read"):
        results_of(ExecuteResponse(1, payload=b"\x00"))


def test_the_names_of_the_db_api():
    """PEP 249, but for Warning, which nothing here is."""
    assert sql_module.Error is ConnectorException
    for name in ("InterfaceError", "DatabaseError"):
        assert issubclass(getattr(sql_module, name), sql_module.Error)
    for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
        assert issubclass(getattr(sql_module, f"{name}Error"), sql_module.DatabaseError)
        assert f"{name}Error" in vastar_client.__all__
    assert not issubclass(sql_module.InterfaceError, sql_module.DatabaseError)
    assert issubclass(vastar_client.RuntimeUnavailable, sql_module.Error)
