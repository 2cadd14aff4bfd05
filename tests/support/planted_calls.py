"""Bugs in calls, connections and what callers are told, to be planted."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import trio

from tests.support.planted_bug import Bug, Plant, around
from vastar_client.wire import Disposition, ExecuteResponse
from vastar_runtime import dispatch, session
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.answer import HttpAnswer
from vastar_runtime.connectors.http.connector import HttpConnector
from vastar_runtime.connectors.http.preparing import Preparer
from vastar_runtime.metrics import Meters
from vastar_runtime.outbox import Outbox
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.pipeline.connecting import AttemptTimeoutLayer
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.pool import Pool
from vastar_runtime.transport.progress import Progress
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["CALL_BUGS"]


def _tenants_share_connections(bucket: Any) -> Any:
    def patched(self: Any, key: Any, owner: Any) -> Any:
        _, origin, route = key
        return bucket(self, (("shared", ""), origin, route), "shared")

    return patched


def _answers_come_twice(put: Any) -> Any:
    async def patched(self: Outbox, message: Any, **how: Any) -> None:
        await put(self, message, **how)
        if message.request_id % 7 == 0:
            await put(self, message, **how)

    return patched


def _calls_hear_no_cancel(_: Any) -> Any:
    return lambda self, why: None


def _calls_have_no_deadline(init: Any) -> Any:
    def patched(self: Call) -> None:
        init(self)
        self.scope.deadline = math.inf

    return patched


def _answers_go_astray(reply: Any) -> Any:
    kept: list[Any] = []

    def patched(self: HttpAnswer, payload_format: Any) -> Any:
        kept.append(reply(self, payload_format))
        return kept[-2] if len(kept) % 5 == 0 else kept[-1]

    return patched


def _nothing_was_sent(_: Any) -> Any:
    return property(lambda self: Disposition.NOT_SENT)


def _answer_with(**fields: Any) -> Plant:
    """Answers say something else."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = dispatch._answer

        def patched(*args: Any) -> ExecuteResponse:
            return msgspec.structs.replace(real(*args), **fields)

        patch.setattr(dispatch, "_answer", patched)

    return plant


def _refusals_say_little(_: Any) -> Any:
    def patched(self: Call, refused: Refused) -> None:
        self.refused_by = refused.policy
        self.retry_after_ms = 0

    return patched


def _timeouts_are_not_counted(call_ended: Any) -> Any:
    def patched(self: Meters, connector: str, error_class: str, *rest: str, **more: Any) -> None:
        if error_class != "TIMEOUT":
            call_ended(self, connector, error_class, *rest, **more)

    return patched


def _attempts_take_their_time(_: Any) -> Any:
    async def patched(self: Any, attempt: Any) -> Any:
        return await self._inner(attempt)

    return patched


def _connections_stay(_: Any) -> Any:
    return lambda self: None


def _work_goes_on(run: Any) -> Any:
    """Something of a call runs on in the background."""

    async def patched(self: Pipeline, call: Call) -> Any:
        outcome = await run(self, call)
        connector = self._connectors["http"]

        async def again() -> None:
            await trio.sleep(0.1)
            call.scope = trio.CancelScope()
            await connector.execute(call)

        trio.lowlevel.spawn_system_task(again)
        return outcome

    return patched


def _a_bug(_: Any) -> Any:
    def patched(self: HttpConnector, call: Call) -> Any:
        raise LookupError("something went wrong")

    return patched


def _idle_stays(_: Any) -> Any:
    return lambda self, now_s, **how: None


def _drains_refuse_nobody(why_not: Any) -> Any:
    def patched(*asked: Any) -> Any:
        failure = why_not(*asked)
        return None if failure is not None and failure.refused_by == "drain:runtime" else failure

    return patched


def _never_idle(_: Any) -> Any:
    async def patched(self: RuntimeState) -> None:
        await trio.sleep_forever()

    return patched


CALL_BUGS: Mapping[str, Bug] = {
    "tenants share connections": Bug(
        around(Pool, "bucket", _tenants_share_connections), ("tenants_are_apart",)
    ),
    "some answers come twice": Bug(
        around(Outbox, "put", _answers_come_twice), ("one_final_answer",)
    ),
    "a cancel is not heard": Bug(
        around(Call, "cancel", _calls_hear_no_cancel), ("a_taken_back_call_ends_at_once",)
    ),
    "calls have no deadline": Bug(
        around(Call, "__attrs_post_init__", _calls_have_no_deadline),
        ("no_call_outlives_its_deadline",),
    ),
    "answers go astray": Bug(
        around(HttpAnswer, "reply", _answers_go_astray), ("a_reply_is_of_its_own_call",)
    ),
    "nothing was ever sent": Bug(
        around(Progress, "disposition", _nothing_was_sent), ("the_disposition_is_true",)
    ),
    "attempts are miscounted": Bug(_answer_with(attempts=77), ("attempts_are_told",)),
    "times are made up": Bug(_answer_with(duration_us=1), ("times_add_up",)),
    "refusals say little": Bug(
        around(Call, "refused", _refusals_say_little), ("refusals_say_who_and_when",)
    ),
    "timeouts are not counted": Bug(
        around(Meters, "call_ended", _timeouts_are_not_counted), ("the_metrics_are_true",)
    ),
    "attempts take their time": Bug(
        around(AttemptTimeoutLayer, "__call__", _attempts_take_their_time),
        ("no_attempt_outlives_its_limit",),
    ),
    "an upstream is not left": Bug(
        around(Http1Connection, "abort", _connections_stay),
        ("the_upstream_is_left_with_its_call",),
    ),
    "a response is not left": Bug(
        around(UpstreamResponse, "abort", _connections_stay),
        ("the_upstream_is_left_with_its_call", "nothing_is_held_for_nobody"),
    ),
    "work goes on behind an answer": Bug(
        around(Pipeline, "run", _work_goes_on), ("no_attempt_after_the_end",)
    ),
    "something raises": Bug(around(Preparer, "prepare", _a_bug), ("no_bug_shows",)),
    "idle connections stay": Bug(around(Pool, "sweep", _idle_stays), ("nothing_is_left",)),
    "a drain refuses nobody": Bug(
        around(session, "why_not", _drains_refuse_nobody), ("draining_begins_nothing",)
    ),
    "a drain never ends": Bug(around(RuntimeState, "wait_idle", _never_idle), ("drains",)),
}
