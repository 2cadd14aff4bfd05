"""Sessions are lent, bounded, swept and closed."""

import pytest
import trio
import trio.lowlevel

from tests.support.data_sources import FakeDriver, source
from vastar_runtime.config import DatabaseConfig, RuntimeConfig, TenantConfig
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.sources import sources_of
from vastar_runtime.transport.progress import Progress


async def test_an_idle_session_is_used_again():
    driver = FakeDriver()
    one = source(driver)
    for _ in range(3):
        async with one.lend(writes=False):
            assert (one.busy, one.idle) == (1, 0)
    assert (one.busy, one.idle, len(driver.opened)) == (0, 1, 1)
    driver.opened[0].is_alive = False
    async with one.lend(writes=False) as session:
        assert session is driver.opened[1]
    assert driver.opened[0].closed == 1


async def test_what_is_unusable_or_left_over_is_closed():
    driver = FakeDriver()
    one = source(driver)
    async with one.lend(writes=False) as session:
        session.is_usable = False
    assert driver.opened[0].closed == 1
    async with one.lend(writes=False):
        await one.aclose()
    assert driver.opened[1].closed == 1
    other = source(driver, idle_timeout_s=5)
    async with other.lend(writes=False):
        pass
    await other.sweep(trio.current_time() + 1)
    assert other.idle == 1
    await other.sweep(trio.current_time() + 10)
    assert other.idle == 0
    assert driver.opened[2].closed == 1


async def test_who_waits_is_counted_and_bounded():
    one = source(FakeDriver(), max_connections=1)
    async with trio.open_nursery() as nursery:

        async def lend() -> None:
            async with one.lend(writes=False):
                pass

        async with one.lend(writes=False):
            nursery.start_soon(lend)
            while not one.waiting:
                await trio.lowlevel.checkpoint()
            assert one.busy == 1


async def test_one_writer_at_a_time():
    one = source(FakeDriver(has_one_writer=True))
    inside: list[int] = []

    async def write() -> None:
        async with one.lend(writes=True):
            inside.append(one.busy)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(write)
    assert inside == [1, 1, 1]


async def test_a_lost_session_is_not_given_back():
    driver = FakeDriver()
    one = source(driver)

    with pytest.raises(SqlError):
        async with one.lend(writes=False):
            raise SqlError(Blame.LOST, "gone")
    assert driver.opened[0].closed == 1
    assert (one.busy, one.idle) == (0, 0)


async def test_who_gets_no_session_holds_no_place():
    class Fails(FakeDriver):
        async def open(self):
            await trio.lowlevel.checkpoint()
            raise SqlError(Blame.UNREACHABLE, "nobody there")

    one = source(Fails(has_one_writer=True), max_connections=1)
    for _ in range(2):
        with pytest.raises(SqlError, match="nobody there"):
            async with one.lend(writes=True):
                pass
    assert one.busy == 0


async def test_sources_that_are_as_before_are_the_same(tmp_path):
    def config(**fields: object) -> RuntimeConfig:
        databases = {
            "a": DatabaseConfig(url=f"sqlite://{tmp_path}/a.db"),
            "b": DatabaseConfig(url=f"sqlite://{tmp_path}/b.db", **fields),  # type: ignore[arg-type]
        }
        return RuntimeConfig(tenants={"acme": TenantConfig(databases=databases)})

    before = sources_of(config(), {})
    after = sources_of(config(read_only=True), {}, before)
    assert after["acme", "a"] is before["acme", "a"]
    assert after["acme", "b"] is not before["acme", "b"]
    assert after["acme", "b"].driver_name == "sqlite"


async def test_who_leaves_the_line_leaves_the_writers_turn_too(autojump_clock):
    driver, progress = FakeDriver(has_one_writer=True), Progress()
    one = source(driver, max_connections=1)
    async with one.lend(writes=False):
        with trio.move_on_after(3):
            async with one.lend(writes=True, progress=progress):
                raise AssertionError("there is no place")
    assert progress.queued_us == 3_000_000
    progress = Progress()
    async with one.lend(writes=True, progress=progress):
        assert one.waiting == 0
    assert progress.queued_us is None
