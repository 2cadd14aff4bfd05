"""Counts by tenant and workspace; no caller can make them grow without bound."""

from tests.support.sessions import request
from vastar_runtime import usage
from vastar_runtime.calls import Call, Caller
from vastar_runtime.policy.deadline import Deadline, Limit
from vastar_runtime.usage import Usage


def call(tenant: str, workspace: str | None = None) -> Call:
    made = Call(
        request(1, tenant_id=tenant, workspace_id=workspace),  # type: ignore[arg-type]
        Caller(),
        Deadline(1e9, 1, Limit.DEFAULT),
        1000,
    )
    made.sent_bytes, made.received_bytes, made.llm_tokens = 3, 5, 7
    return made


def test_calls_are_counted_for_whom_they_are() -> None:
    counts = Usage()
    first, second = call("acme", "prod"), call("acme")
    rows = [counts.begins(each) for each in (first, first, second)]
    counts.ends(rows[0], first, was_refused=False)
    counts.ends(rows[2], second, was_refused=True)
    counts.refused("acme", None)
    counts.refused("nobody", None)
    assert counts.rows() == [
        {
            "tenant": "acme", "workspace": "", "calls": 2, "refused": 2, "in_flight": 0,
            "sent_bytes": 3, "received_bytes": 5, "llm_tokens": 7,
        },
        {
            "tenant": "acme", "workspace": "prod", "calls": 1, "refused": 0, "in_flight": 1,
            "sent_bytes": 3, "received_bytes": 5, "llm_tokens": 7,
        },
    ]  # fmt: skip


def test_made_up_names_are_counted_together() -> None:
    counts = Usage()
    for number in range(usage.MOST_ROWS + 50):
        made = call(f"tenant-{number}")
        counts.ends(counts.begins(made), made, was_refused=False)
    assert len(counts.rows()) == usage.MOST_ROWS + 1
    assert next(row for row in counts.rows() if row["tenant"] == "(others)")["calls"] == 50


def test_the_workspaces_of_one_tenant_leave_rows_for_the_others() -> None:
    counts = Usage()
    for number in range(usage.MOST_ROWS + 50):
        made = call("greedy", f"workspace-{number}")
        counts.ends(counts.begins(made), made, was_refused=False)
    made = call("quiet", "prod")
    counts.ends(counts.begins(made), made, was_refused=False)
    rows = {(row["tenant"], row["workspace"]): row["calls"] for row in counts.rows()}
    assert len(rows) == usage.MOST_ROWS_OF_TENANT + 2
    assert rows["quiet", "prod"] == 1
    assert rows["greedy", "(others)"] == usage.MOST_ROWS + 50 - usage.MOST_ROWS_OF_TENANT
