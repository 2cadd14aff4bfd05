"""Connector names that the published runtime answers without running anything."""

from typing import Final

import trio

from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure, FailureKind, Outcome

__all__ = ["DATABASE_NAMES", "NotImplementedConnector"]

DATABASE_NAMES: Final = ("db", "postgres", "mysql")


class NotImplementedConnector:
    """Says the published words: existing programs tell it from an unknown connector by them."""

    can_stream = False

    async def execute(self, _call: Call) -> Outcome:
        """Refuse, as published."""
        await trio.lowlevel.checkpoint()
        return Failure(FailureKind.NOT_SUPPORTED, "DB execution not yet implemented")
