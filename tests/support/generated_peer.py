"""Typical messages through the generated Builder and accessors: the peer of the codec's benchmark.

Here, because only tests and the codec may import the generated code.
"""

import flatbuffers

from vastar_client import wire
from vastar_client.wire import _generated

__all__ = ["access_request", "access_response", "build_request", "build_response"]


def build_request(message: wire.ExecuteRequest, payload: bytes) -> bytearray:
    """The same message through the generated Builder functions."""
    builder = flatbuffers.Builder(256 + len(payload))
    vector = builder.CreateByteVector(payload)
    operation = builder.CreateString(message.operation)
    connector = builder.CreateString(message.connector_name)
    trace = builder.CreateString(message.trace_id)
    workspace = builder.CreateString(message.workspace_id)
    tenant = builder.CreateString(message.tenant_id)
    _generated.ExecuteRequestStart(builder)
    _generated.ExecuteRequestAddRequestId(builder, message.request_id)
    _generated.ExecuteRequestAddTenantId(builder, tenant)
    _generated.ExecuteRequestAddWorkspaceId(builder, workspace)
    _generated.ExecuteRequestAddTraceId(builder, trace)
    _generated.ExecuteRequestAddConnectorName(builder, connector)
    _generated.ExecuteRequestAddOperation(builder, operation)
    _generated.ExecuteRequestAddDeadlineAtMs(builder, message.deadline_at_ms)
    _generated.ExecuteRequestAddPayload(builder, vector)
    builder.Finish(_generated.ExecuteRequestEnd(builder))
    output: bytearray = builder.Output()
    return output


def build_response(message: wire.ExecuteResponse, payload: bytes) -> bytearray:
    builder = flatbuffers.Builder(256 + len(payload))
    vector = builder.CreateByteVector(payload)
    _generated.ExecuteResponseStart(builder)
    _generated.ExecuteResponseAddRequestId(builder, message.request_id)
    _generated.ExecuteResponseAddPayload(builder, vector)
    _generated.ExecuteResponseAddDurationUs(builder, message.duration_us)
    _generated.ExecuteResponseAddDisposition(builder, message.disposition)
    _generated.ExecuteResponseAddAttempts(builder, message.attempts)
    _generated.ExecuteResponseAddQueuedUs(builder, message.queued_us)
    builder.Finish(_generated.ExecuteResponseEnd(builder))
    output: bytearray = builder.Output()
    return output


def _payload_of(table: flatbuffers.table.Table, slot: int) -> memoryview:
    """The payload as a view: the accessors themselves give one byte a call."""
    offset = table.Offset(4 + 2 * slot)
    start = table.Vector(offset)
    return memoryview(table.Bytes)[start : start + table.VectorLen(offset)]


def access_request(flatbuffer: bytes) -> tuple[object, ...]:
    """Every field of the request through the generated accessors."""
    table = _generated.ExecuteRequest.GetRootAs(flatbuffer)
    texts = (
        table.TenantId(),
        table.WorkspaceId(),
        table.TraceId(),
        table.ConnectorName(),
        table.Operation(),
        table.IdempotencyKey(),
    )
    return (
        table.RequestId(),
        *(text and text.decode() for text in texts),
        table.DeadlineAtMs(),
        _payload_of(table._tab, 7),
        None if table.HeadersIsNone() else table.HeadersLength(),
        table.Stream(),
        table.PayloadFormat(),
        table.ResponseFormat(),
        table.BodyFollows(),
    )


def access_response(flatbuffer: bytes) -> tuple[object, ...]:
    table = _generated.ExecuteResponse.GetRootAs(flatbuffer)
    texts = (table.ErrorMessage(), table.RefusedBy())
    return (
        table.RequestId(),
        table.ErrorClass(),
        *(text and text.decode() for text in texts),
        _payload_of(table._tab, 3),
        table.DurationUs(),
        table.RetryAfterMs(),
        table.Disposition(),
        table.Attempts(),
        table.PayloadFormat(),
        table.QueuedUs(),
        table.BackoffUs(),
    )
