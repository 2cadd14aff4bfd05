"""From a payload to what is to be done; nothing here waits.

`Job` is what a session runs: an operation with statements whose parameters are Python values. The
payload is native (`wire.rows`) or JSON, which published SDKs can send; the answer is in the same
unless the caller asks otherwise (`answers`).
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from vastar_client.wire import PayloadFormat, RemoteProtocolError, ResponseFormat
from vastar_client.wire.codec import one_buffer
from vastar_client.wire.rows import (
    SqlRequest,
    SqlStatement,
    decode_request,
)
from vastar_client.wire.values import SqlValueError, from_json
from vastar_runtime.calls import Call
from vastar_runtime.connectors.sql.errors import Blame, SqlError

__all__ = [
    "OPERATIONS",
    "Job",
    "Params",
    "Result",
    "job_of",
    "wants_json",
]

OPERATIONS: Final = ("query", "execute", "execute_many", "transaction")
_ISOLATIONS: Final = ("read committed", "repeatable read", "serializable")

Params: TypeAlias = list[Any] | dict[str, Any] | None


class Job(NamedTuple):
    """What is to be done.

    Attributes:
        operation: one of `OPERATIONS`.
        statements: one, but for a transaction.
        params_list: of `execute_many`.
        isolation: of the transaction; None is the server's own.
        max_rows: of each result; 0 is the source's bound.
    """

    operation: str
    statements: Sequence[SqlStatement]
    params_list: Sequence[Params] = ()
    isolation: str | None = None
    max_rows: int = 0
    source: str = ""
    timeout_ms: int = 0


class Result(NamedTuple):
    """What a statement gave.

    Attributes:
        names: of the columns; none where it gives no rows.
        types: as the database calls them; None where it does not.
        row_count: rows changed or read, -1 where nobody knows.
        last_id: of the row inserted last, where the database tells.
    """

    names: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    row_count: int = -1
    last_id: int | None = None
    types: Sequence[str] | None = None


_UNREADABLE: Final = (
    *(RemoteProtocolError, SqlValueError, RecursionError),
    *(msgspec.MsgspecError, UnicodeDecodeError),  # msgspec raises both for what is no JSON
)


def job_of(call: Call) -> Job:
    """The job that `call` asks for.

    Raises:
        SqlError: it cannot be read, or asks for what there is not.
    """
    request = call.request
    operation = request.operation
    if operation not in OPERATIONS:
        known = ", ".join(OPERATIONS)
        raise _wrong(f"Unknown operation of a database: {operation[:100]}; known are {known}")
    data = b"" if request.payload is None else one_buffer(request.payload)
    try:
        if request.payload_format is PayloadFormat.NATIVE:
            asked = decode_request(data)
        else:
            asked = _from_json(data)
    except _UNREADABLE as error:
        raise _wrong(f"Invalid database request: {error}") from None
    statements = asked.statements or []
    if operation != "transaction":
        if asked.statements is not None:
            raise _wrong(f"operation {operation} takes one sql: statements are of transaction")
        statements = [SqlStatement(asked.sql, asked.params)]
    if not statements or not all(statement.sql.strip() for statement in statements):
        raise _wrong(
            "Missing required field: statements"
            if operation == "transaction"
            else "Missing required field: sql"
        )
    if (operation == "execute_many") != (asked.params_list is not None):
        raise _wrong("operation execute_many, and no other, takes params_list")
    isolation = asked.isolation
    if isolation is not None and (operation != "transaction" or isolation not in _ISOLATIONS):
        raise _wrong("isolation is of transaction, and one of " + ", ".join(_ISOLATIONS))
    if asked.timeout_ms < 0 or asked.max_rows < 0:
        raise _wrong("timeout_ms and max_rows are not negative")
    return Job(
        operation,
        statements,
        asked.params_list or (),
        isolation,
        asked.max_rows,
        asked.source,
        asked.timeout_ms,
    )


def _wrong(words: str) -> SqlError:
    return SqlError(Blame.CALLER, words)


_JSON_REQUESTS: Final = msgspec.json.Decoder(SqlRequest)


def _from_json(data: bytes | bytearray | memoryview) -> SqlRequest:
    asked = _JSON_REQUESTS.decode(data)
    return msgspec.structs.replace(
        asked,
        params=_params(asked.params),
        params_list=None
        if asked.params_list is None
        else [_params(each) or [] for each in asked.params_list],
        statements=None
        if asked.statements is None
        else [SqlStatement(each.sql, _params(each.params)) for each in asked.statements],
    )


def _params(params: Params) -> Params:
    if isinstance(params, dict):
        return {name: from_json(value) for name, value in params.items()}
    return None if params is None else [from_json(value) for value in params]


def wants_json(call: Call) -> bool:
    """Whether the answer is to be JSON."""
    wanted = call.request.response_format
    if wanted is ResponseFormat.AS_REQUEST:
        return call.request.payload_format is PayloadFormat.JSON
    return wanted is ResponseFormat.JSON
