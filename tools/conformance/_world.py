"""What a scene is given: a way to the implementation, and the upstream behind it."""

from collections.abc import Awaitable, Callable

import attrs
import trio

from tools.conformance._upstream import Upstream

__all__ = ["World"]


@attrs.frozen
class World:
    """The surroundings of all scenes.

    Attributes:
        connect: opens a connection to the implementation under test.
        upstream: the HTTP server that its calls go to; knows what reached it.
        wall_clock_ms: now, as deadlines count: Unix epoch, milliseconds.
    """

    connect: Callable[[], Awaitable[trio.abc.HalfCloseableStream]]
    upstream: Upstream
    wall_clock_ms: Callable[[], float]

    def url(self, path: str = "/small") -> str:
        """Of a path of the upstream."""
        return f"http://127.0.0.1:{self.upstream.port}{path}"
