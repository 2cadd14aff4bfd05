"""All workers of a runtime, as one of them sees them: what the control connector asks of them."""

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Team", "TeamError"]


class TeamError(Exception):
    """The team refuses, or does not answer; the message is for people."""


class Team(Protocol):
    """The workers of a runtime that has several. Each method raises `TeamError`."""

    async def status(self, *, verbose: bool) -> dict[str, Any]:
        """The account of all."""

    async def metrics(self) -> bytes:
        """The text for Prometheus, of all."""

    async def reload(self) -> Mapping[str, Any]:
        """Have all take up the configuration anew; what changed."""

    async def drain(self) -> Mapping[str, Any]:
        """Have all leave."""
