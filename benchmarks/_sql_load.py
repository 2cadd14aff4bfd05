"""The load on databases behind the runtime: `_load` with queries, in its own process.

python -m benchmarks._sql_load SPEC     (a SqlSpec as JSON; prints a Sample as JSON)
"""

import gc
import sys

import msgspec

from benchmarks import _load
from benchmarks._load import MARK_ID, LoadSpec, Template, WrongAnswer, decoded_answer
from vastar_client.wire import ExecuteRequest, PayloadFormat
from vastar_client.wire.rows import SqlRequest, decode_answer, encode_request, rows_of

__all__ = ["EXPECTED", "POINT", "SqlSpec"]

POINT = "select id, name, n from items where id = "
"""A row by its key; the placeholder is the database's."""

EXPECTED = (7, "item 7", 3.5)


class SqlSpec(LoadSpec, frozen=True, kw_only=True):
    """What to do; `url` says nothing.

    Attributes:
        source: of tenant acme.
        sql: with one parameter, 7.
    """

    source: str
    sql: str


def check(frame: bytes) -> None:
    """The answer must be the one row. Raises WrongAnswer."""
    payload = decoded_answer(frame).payload
    assert isinstance(payload, memoryview)
    (block,) = decode_answer(payload)
    if rows_of(block) != [EXPECTED]:
        raise WrongAnswer(f"{block.length} rows")


def main() -> None:
    """Run the load of the first argument."""
    gc.disable()
    spec = msgspec.json.decode(sys.argv[1], type=SqlSpec)
    request = ExecuteRequest(
        request_id=MARK_ID,
        tenant_id="acme",
        connector_name="sql",
        operation="query",
        payload=encode_request(SqlRequest(source=spec.source, sql=spec.sql, params=[7])),
        payload_format=PayloadFormat.NATIVE,
    )
    print(msgspec.json.encode(_load.run(spec, Template.of(request), check)).decode())


if __name__ == "__main__":
    main()
