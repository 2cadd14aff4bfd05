"""Data sources without databases: sessions that only know whether they were closed."""

import trio
import trio.lowlevel

from vastar_runtime.config import DatabaseConfig
from vastar_runtime.connectors.sql.sources import Source

__all__ = ["FakeDriver", "FakeSession", "source"]


class FakeSession:
    def __init__(self) -> None:
        self.is_usable = True
        self.is_alive = True
        self.closed = 0

    def looks_alive(self) -> bool:
        return self.is_alive

    async def aclose(self) -> None:
        self.closed += 1


class FakeDriver:
    origin = "fake://"

    def __init__(self, *, has_one_writer: bool = False) -> None:
        self.has_one_writer = has_one_writer
        self.opened: list[FakeSession] = []

    async def open(self):
        await trio.lowlevel.checkpoint()
        self.opened.append(FakeSession())
        return self.opened[-1]


def source(driver: FakeDriver, **fields: object) -> Source:
    config = DatabaseConfig(url="sqlite:///x", **fields)  # type: ignore[arg-type]
    return Source(config, driver, "fake")  # type: ignore[arg-type]
