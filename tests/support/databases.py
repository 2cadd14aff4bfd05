"""Databases behind a running runtime, called over memory streams; the clock is the real one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import trio

from tests.support.running import Running, running
from tests.support.sessions import CallerEnd, answer
from vastar_client.wire import ErrorClass, ExecuteRequest, ExecuteResponse, PayloadFormat
from vastar_client.wire.rows import (
    ResultBlock,
    SqlRequest,
    SqlStatement,
    decode_answer,
    encode_request,
    rows_of,
)
from vastar_client.wire.values import pack
from vastar_runtime.config import load_config

__all__ = ["Databases", "databases", "sql_request"]


def _packed(params: Any) -> Any:
    if isinstance(params, dict):
        return {name: pack(value) for name, value in params.items()}
    return None if params is None else [pack(value) for value in params]


def sql_request(
    request_id: int,
    operation: str,
    sql: str = "",
    params: Any = None,
    *,
    source: str = "",
    connector: str = "sql",
    statements: Sequence[tuple[str, Any]] | None = None,
    params_list: Sequence[Any] | None = None,
    tenant: str = "acme",
    isolation: str | None = None,
    max_rows: int = 0,
    timeout_ms: int = 0,
    **fields: Any,
) -> ExecuteRequest:
    """A native call of a database."""
    asked = SqlRequest(
        source=source,
        sql=sql,
        params=_packed(params),
        statements=None
        if statements is None
        else [SqlStatement(text, _packed(each)) for text, each in statements],
        params_list=None if params_list is None else [_packed(each) for each in params_list],
        isolation=isolation,
        max_rows=max_rows,
        timeout_ms=timeout_ms,
    )
    return ExecuteRequest(
        request_id,
        tenant_id=tenant,
        connector_name=connector,
        operation=operation,
        payload=encode_request(asked),
        payload_format=PayloadFormat.NATIVE,
        **fields,
    )


@attrs.define
class Databases:
    """A caller of a runtime with databases."""

    running: Running
    end: CallerEnd
    _ids: int = 0

    async def send(self, operation: str, sql: str = "", params: Any = None, **fields: Any) -> int:
        """Begin a call; its id."""
        self._ids += 1
        await self.end.send(sql_request(self._ids, operation, sql, params, **fields))
        return self._ids

    async def call(
        self, operation: str, sql: str = "", params: Any = None, **fields: Any
    ) -> ExecuteResponse:
        """The answer to one call."""
        await self.send(operation, sql, params, **fields)
        return answer(await self.end.receive())

    async def results(
        self, operation: str, sql: str = "", params: Any = None, **fields: Any
    ) -> list[ResultBlock]:
        """The results of a call that succeeds."""
        got = await self.call(operation, sql, params, **fields)
        assert got.error_class is ErrorClass.SUCCESS, got.error_message
        assert got.payload is not None
        return decode_answer(got.payload)  # type: ignore[arg-type]

    async def query(self, sql: str, params: Any = None, **fields: Any) -> list[tuple[Any, ...]]:
        """The rows of a query that succeeds."""
        (block,) = await self.results("query", sql, params, **fields)
        return rows_of(block)

    async def execute(self, sql: str, params: Any = None, **fields: Any) -> ResultBlock:
        """What a statement that succeeds did."""
        (block,) = await self.results("execute", sql, params, **fields)
        return block

    async def failed(
        self,
        error_class: ErrorClass,
        operation: str,
        sql: str = "",
        params: Any = None,
        **fields: Any,
    ) -> ExecuteResponse:
        """The answer to a call that fails so."""
        got = await self.call(operation, sql, params, **fields)
        assert got.error_class is error_class, (got.error_class, got.error_message)
        assert got.error_message
        return got

    async def json(self, operation: str, payload: object, **fields: Any) -> Any:
        """The answer to a call of a published SDK, as JSON."""
        self._ids += 1
        request = ExecuteRequest(
            self._ids,
            tenant_id="acme",
            connector_name="db",
            operation=operation,
            payload=msgspec.json.encode(payload),
            **fields,
        )
        await self.end.send(request)
        got = answer(await self.end.receive())
        assert got.error_class is ErrorClass.SUCCESS, got.error_message
        return msgspec.json.decode(got.payload)  # type: ignore[arg-type]


@asynccontextmanager
async def databases(directory: Path, text: str) -> AsyncIterator[Databases]:
    """A caller of a runtime that runs with this configuration."""
    file = directory / "vastar.toml"
    file.write_text(text)
    loaded = load_config(file=str(file), environ={})
    async with running(loaded.config) as runtime:
        end = runtime.caller()
        yield Databases(runtime, end)
        await end.close()
        with trio.fail_after(10):
            while runtime.runtime.state.connections:  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.01)
