"""What each tenant and workspace has used since the start: for people, in `status --tenants`.

One row for each pair, found by one dictionary look-up a call. Names are the callers' to choose
where no rules say otherwise, and workspaces always, so there are no more than `MOST_ROWS` rows, of
one tenant `MOST_ROWS_OF_TENANT`: what comes later is counted together, under no name, and nobody's
workspaces leave another tenant without rows. Calls that were refused before they began are counted
for those only who have a row: a stranger makes none.
"""

from typing import Any, Final

import attrs

from vastar_runtime.calls import Call

__all__ = ["MOST_ROWS", "MOST_ROWS_OF_TENANT", "Usage"]

MOST_ROWS: Final = 1000
MOST_ROWS_OF_TENANT: Final = 50
_UNNAMED: Final = "(others)"
_OTHERS: Final = (_UNNAMED, "")


@attrs.define(eq=False)
class _Row:
    """The counts of one tenant and workspace."""

    calls: int = 0
    refused: int = 0
    in_flight: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    llm_tokens: int = 0


class Usage:
    """The counts of one runtime."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._of_tenant: dict[str, int] = {}

    def begins(self, call: Call) -> _Row:
        """A call begins; hand what is returned to `ends`."""
        request = call.request
        key = (request.tenant_id, request.workspace_id or "")
        row = self._rows.get(key)
        if row is None:
            row = self._another(*key)
        row.in_flight += 1
        return row

    def _another(self, tenant: str, workspace: str) -> _Row:
        """The row of those who have none yet: their own, or the one that they share."""
        count = self._of_tenant.get(tenant, 0)
        key = tenant, workspace if count < MOST_ROWS_OF_TENANT else _UNNAMED
        if key not in self._rows:
            if len(self._rows) >= MOST_ROWS:
                return self._rows.setdefault(_OTHERS, _Row())
            self._rows[key] = _Row()
            self._of_tenant[tenant] = count + 1
        return self._rows[key]

    @staticmethod
    def ends(row: _Row, call: Call, *, was_refused: bool) -> None:
        """The same call has ended, or its caller is gone."""
        row.in_flight -= 1
        row.calls += 1
        row.refused += was_refused
        row.sent_bytes += call.sent_bytes
        row.received_bytes += call.received_bytes
        row.llm_tokens += call.llm_tokens

    def refused(self, tenant: str, workspace: str | None) -> None:
        """A call was not begun at all."""
        row = self._rows.get((tenant, workspace or ""))
        if row is not None:
            row.calls += 1
            row.refused += 1

    def rows(self) -> list[dict[str, Any]]:
        """The counts, by tenant and workspace."""
        return [
            {"tenant": tenant, "workspace": workspace, **attrs.asdict(row)}
            for (tenant, workspace), row in sorted(self._rows.items())
        ]
