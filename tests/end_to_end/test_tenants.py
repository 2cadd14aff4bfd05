"""Two tenants of one runtime attack each other, and fail.

`acme` is for one user, `rival` for another; `shared` for whoever has its token. Everything runs
over memory in virtual time, with an upstream that tells on which connection each request came.
"""

import os
import random
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
import trio

from tests.support.running import UPSTREAM_PORT, URL, Running, http_request, running
from tests.support.sessions import CallerEnd, answer
from vastar_client.wire import (
    END_OF_STREAM,
    Authenticate,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    HealthResponse,
)
from vastar_runtime.config import HttpConfig, PoolConfig, RuntimeConfig, TenantConfig
from vastar_runtime.transport.memory import MemoryChannel

OWN = os.geteuid()
ACME, RIVAL = OWN + 1, OWN + 2
TOKEN = "planted-token-0123456789"
GET = {"url": f"{URL}/small"}


def config(token_file: Path | None = None, **policies: object) -> RuntimeConfig:
    tenants = {
        "acme": TenantConfig(allow_uids=(ACME,)),
        "rival": TenantConfig(allow_uids=(RIVAL,)),
    }
    if token_file is not None:
        token_file.write_text(TOKEN)
        token_file.chmod(0o600)
        tenants["shared"] = TenantConfig(token_file=str(token_file))
    made = RuntimeConfig(tenants=tenants)
    # The upstream of these tests is at a loopback address.
    egress = msgspec.structs.replace(made.defaults.egress, allow_ranges=("127.0.0.1",))
    policies = {"egress": egress, **policies}
    return msgspec.structs.replace(
        made, defaults=msgspec.structs.replace(made.defaults, **policies)
    )


async def ask(caller: CallerEnd, number: int, tenant: str, **fields: object) -> ExecuteResponse:
    await caller.send(http_request(number, GET, tenant_id=tenant, **fields))
    return answer(await caller.receive())


def assert_refused(got: ExecuteResponse) -> None:
    assert got.error_class is ErrorClass.INVALID_REQUEST
    assert got.disposition is Disposition.NOT_SENT
    assert got.refused_by == "identity:tenant"
    assert (got.error_message or "").startswith("not allowed")


class Witness:
    """An upstream that notes which tenants' requests each connection brought."""

    def __init__(self) -> None:
        self.seen: dict[int, set[str]] = defaultdict(set)
        self.requests = 0
        self._connections = 0

    async def handle(self, channel: MemoryChannel) -> None:
        self._connections += 1
        number = self._connections
        data = b""
        while got := await channel.receive_some():
            data += got
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                whose = head.lower().partition(b"x-whose: ")[2].partition(b"\r\n")[0].decode()
                self.seen[number].add(whose)
                self.requests += 1
                await trio.sleep(0.01)
                await channel.send_buffers((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",))


async def test_nobody_calls_in_the_name_of_another(autojump_clock: trio.abc.Clock) -> None:
    async with running(config()) as runtime:
        victims = {ACME: "acme", RIVAL: "rival"}
        for uid, own in victims.items():
            caller = runtime.caller(uid=uid)
            for number, tenant in enumerate(("acme", "rival", "", "unnamed", "ACME", "acme "), 1):
                got = await ask(caller, number, tenant, workspace_id="prod")
                if tenant == own:
                    assert got.error_class is ErrorClass.SUCCESS
                else:
                    assert_refused(got)
            await caller.close()
        assert len(runtime.network.channels) == 2, "of what was refused nothing was sent"


async def test_a_refusal_does_not_tell_which_tenants_there_are(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(config()) as runtime:
        caller = runtime.caller(uid=RIVAL)
        there, nowhere = await ask(caller, 1, "acme"), await ask(caller, 2, "nowhere")
        assert there.error_message == nowhere.error_message
        assert "acme" not in (there.error_message or "")
        for number, operation in enumerate(("status", "reload", "drain"), 3):
            await caller.send(
                http_request(number, {}, connector_name="vastar", operation=operation)
            )
            got = answer(await caller.receive())
            assert got.error_class is ErrorClass.INVALID_REQUEST
            assert got.payload is None
        await caller.close()


async def test_streams_and_bodies_in_pieces_are_refused_alike(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(config()) as runtime:
        caller = runtime.caller(uid=RIVAL)
        await caller.send(http_request(1, GET, tenant_id="acme", stream=True))
        end = await caller.receive()
        assert getattr(end, "refused_by", None) == "identity:tenant"
        assert_refused(await ask(caller, 2, "acme", body_follows=True))
        assert not runtime.network.channels
        await caller.close()


async def _storm(runtime: Running, tenant: str, uid: int, calls: int, seed: int) -> None:
    """Calls of one tenant from several connections, some cancelled in the middle."""
    chance = random.Random(seed)
    caller = runtime.caller(uid=uid)
    for number in range(1, calls + 1):
        workspace = chance.choice(["", "a", "b"])
        whose = f"{tenant}/{workspace}"
        payload = {"url": f"{URL}/x", "headers": {"x-whose": whose}}
        await caller.send(
            http_request(number, payload, tenant_id=tenant, workspace_id=workspace or None)
        )
        if chance.random() < 0.5:
            assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
        elif chance.random() < 0.2:
            await caller.close()
            caller = runtime.caller(uid=uid)
        else:
            await trio.sleep(chance.random() * 0.03)
            assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
    await caller.close()


@pytest.mark.parametrize("seed", range(4))
async def test_no_upstream_connection_is_ever_used_for_two_tenants(
    seed: int, autojump_clock: trio.abc.Clock
) -> None:
    witness = Witness()
    async with running(config()) as runtime:
        runtime.network.handlers[UPSTREAM_PORT] = witness.handle
        async with trio.open_nursery() as nursery:
            for number in range(6):
                tenant, uid = (("acme", ACME), ("rival", RIVAL))[number % 2]
                nursery.start_soon(_storm, runtime, tenant, uid, 40, 100 * seed + number)
        assert witness.requests > 150
        assert all(len(whose) == 1 for whose in witness.seen.values()), witness.seen
        assert len(witness.seen) < witness.requests / 2, "connections were used again"


async def test_the_same_bytes_of_two_tenants_go_their_own_ways(
    autojump_clock: trio.abc.Clock,
) -> None:
    """What is known of a payload must not carry over what belongs to a tenant."""
    async with running(config()) as runtime:
        callers = {"acme": runtime.caller(uid=ACME), "rival": runtime.caller(uid=RIVAL)}
        for number in range(1, 9):
            for tenant, caller in callers.items():
                assert (await ask(caller, number, tenant)).error_class is ErrorClass.SUCCESS
        pools = {(pool["tenant"], pool["idle"]) for pool in runtime.runtime.pools()}
        assert pools == {("acme", 1), ("rival", 1)}
        assert len(runtime.network.channels) == 2
        for caller in callers.values():
            await caller.close()


async def test_a_flood_of_one_does_not_starve_the_other(autojump_clock: trio.abc.Clock) -> None:
    bulkhead = msgspec.structs.replace(
        RuntimeConfig().defaults.bulkhead, max_in_runtime=20, max_per_tenant=10
    )
    async with running(config(bulkhead=bulkhead)) as runtime:
        flood = [runtime.caller(uid=RIVAL) for _ in range(4)]
        for caller in flood:
            for number in range(1, 101):
                slow = {"url": f"{URL}/sleep?ms=20000", "timeout_ms": 25_000}
                await caller.send(http_request(number, slow, tenant_id="rival"))
        await trio.sleep(1)
        quiet = runtime.caller(uid=ACME)
        began_s = trio.current_time()
        for number in range(1, 6):
            assert (await ask(quiet, number, "acme")).error_class is ErrorClass.SUCCESS
        assert trio.current_time() - began_s < 0.1
        for caller in (*flood, quiet):
            await caller.close()


async def test_hung_calls_and_stalled_streams_of_one_leave_the_other_connections(
    autojump_clock: trio.abc.Clock,
) -> None:
    """By the numbers' default proportions: half of the pool in calls, and half in streams."""
    bulkhead = msgspec.structs.replace(
        RuntimeConfig().defaults.bulkhead, max_in_runtime=20, max_per_tenant=10
    )
    pool = PoolConfig(max_connections=20, max_connections_per_key=20)
    base = msgspec.structs.replace(config(bulkhead=bulkhead), http=HttpConfig(pool=pool))
    async with running(base) as runtime:
        runtime.network.handlers[UPSTREAM_PORT + 1] = Witness().handle
        flood = runtime.caller(uid=RIVAL)
        for number in range(1, 21):
            hung = {"url": f"{URL}/sleep?ms=20000", "timeout_ms": 25_000}
            await flood.send(
                http_request(number, hung, tenant_id="rival", workspace_id=f"w{number % 4}",
                             stream=number > 10)
            )  # fmt: skip
        await trio.sleep(1)
        assert len(runtime.network.channels) == 15, "three quarters"
        quiet = runtime.caller(uid=ACME)
        began_s = trio.current_time()
        elsewhere = {"url": f"http://127.0.0.1:{UPSTREAM_PORT + 1}/x"}
        for number in range(1, 6):
            await quiet.send(http_request(number, elsewhere, tenant_id="acme"))
            assert answer(await quiet.receive()).error_class is ErrorClass.SUCCESS
        assert trio.current_time() - began_s < 0.1
        for caller in (flood, quiet):
            await caller.close()


async def test_a_token_opens_its_own_tenant_on_its_own_connection_only(
    tmp_path: Path, autojump_clock: trio.abc.Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(config(tmp_path / "tokens")) as runtime:
        header = [("authorization", f"Bearer {TOKEN}")]
        mixed, shown = runtime.caller(uid=RIVAL), runtime.caller()
        got = await ask(mixed, 1, "shared", headers=header)
        assert got.error_class is ErrorClass.SUCCESS
        assert_refused(await ask(mixed, 2, "shared"))
        assert_refused(await ask(mixed, 3, "acme", headers=header))
        await shown.send(Authenticate(token="planted-guess-0123456789"))
        told = await shown.receive()
        assert isinstance(told, HealthResponse)
        assert not told.healthy
        assert_refused(await ask(shown, 1, "shared"))
        await shown.send(Authenticate(token=TOKEN))
        told = await shown.receive()
        assert isinstance(told, HealthResponse)
        assert told.healthy
        assert (await ask(shown, 2, "shared")).error_class is ErrorClass.SUCCESS
        assert_refused(await ask(shown, 3, "acme"))
        for caller in (mixed, shown):
            await caller.close()
    written = "".join(capfd.readouterr())
    assert "planted" not in written


async def test_who_guesses_tokens_or_says_nothing_is_cut_off(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with running(config(tmp_path / "tokens")) as runtime:
        guesser, silent = runtime.caller(), runtime.caller()
        for number in range(20):
            await guesser.send(Authenticate(token=f"guess-{number:020d}"))
            assert isinstance(await guesser.receive(), HealthResponse)
        assert "too many tokens" in (answer(await guesser.receive()).error_message or "")
        assert await guesser.receive() is END_OF_STREAM
        assert await silent.receive() is END_OF_STREAM
        assert 30 <= trio.current_time() < 60
        for caller in (guesser, silent):
            await caller.close()
