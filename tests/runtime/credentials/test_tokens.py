"""Fetching tokens: one question at a time, whoever waits and whoever goes away."""

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.http_calls import json_of
from tests.support.log_lines import log_lines
from tests.support.policy_files import Tree
from tests.support.running import URL, Running, http_request, running
from tests.support.token_server import TOKEN_PORT, TokenServer, oauth2
from vastar_client.wire import ErrorClass, ExecuteResponse

SMALL = {"url": f"{URL}/small"}


@pytest.fixture
def server() -> TokenServer:
    return TokenServer()


async def calls(runtime: Running, count: int, **fields: object) -> list[ExecuteResponse]:
    """The answers to so many calls at once."""
    answers: list[ExecuteResponse] = []

    async def call() -> None:
        answers.append(await runtime.http(SMALL, **fields))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(call)
    return answers


def tokens_sent(runtime: Running) -> list[str]:
    return [
        {name.lower(): value for name, value in event["headers"]}["authorization"]
        for event in runtime.upstream.seen("req")
    ]


async def test_it_asks_once_for_all_and_keeps_what_it_got(server, tmp_path, autojump_clock):
    async with running(oauth2(tmp_path, scope="read write", audience="x")) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        server.delay_s = 0.5
        for answer in await calls(runtime, 20):
            json_of(answer)
        await calls(runtime, 5)
        assert set(tokens_sent(runtime)) == {"Bearer planted-token-1"}
        (asked,) = server.asked
        assert asked.fields == {
            "grant_type": "client_credentials",
            "scope": "read write",
            "audience": "x",
        }
        assert asked.headers["authorization"].startswith("Basic ")
        pools = [pool for pool in runtime.runtime.pools() if "4800" in pool["origin"]]
        assert [pool["tenant"] for pool in pools] == ["acme"]


async def test_it_refreshes_ahead_and_nobody_waits_for_that(server, tmp_path, autojump_clock):
    server.lifetime_s = 100
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        await runtime.http(SMALL)
        await trio.sleep(70)
        server.delay_s = 2
        before_s = trio.current_time()
        await calls(runtime, 3)
        assert trio.current_time() == before_s
        await trio.sleep(3)
        await runtime.http(SMALL)
        names = [text.removeprefix("Bearer planted-token-") for text in tokens_sent(runtime)]
        assert names == ["1", "1", "1", "1", "2"]
        assert len(server.asked) == 2


async def test_an_expired_token_is_not_sent(server, tmp_path, autojump_clock):
    server.lifetime_s = 100
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        await runtime.http(SMALL)
        await trio.sleep(96)
        await runtime.http(SMALL)
        assert tokens_sent(runtime)[-1] == "Bearer planted-token-2"


async def test_who_goes_away_takes_nothing_along(server, tmp_path, autojump_clock):
    """A deadline that is too short for the question still leaves its answer to the next."""
    server.delay_s = 2
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        answer = await runtime.http({**SMALL, "timeout_ms": 500})
        assert answer.error_class is ErrorClass.TIMEOUT
        assert "waiting for the token of its credential" in (answer.error_message or "")
        caller = runtime.caller()
        await caller.send(http_request(1, SMALL))
        await trio.sleep(0.1)
        await caller.close()
        await trio.sleep(2)
        before_s = trio.current_time()
        json_of(await runtime.http({**SMALL, "timeout_ms": 500}))
        assert trio.current_time() == before_s
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("refused", "kind", "words"),
    [
        ((401, b'{"error":"invalid_client"}'), ErrorClass.PERMANENT, "401 (invalid_client)"),
        ((400, b'{"error":"planted-error"}'), ErrorClass.PERMANENT, "it answered 400"),
        ((302, b""), ErrorClass.PERMANENT, "redirects are not followed"),
        ((429, b""), ErrorClass.RATE_LIMITED, "it answered 429"),
        ((503, b""), ErrorClass.TRANSIENT, "it answered 503"),
        ((200, b"planted"), ErrorClass.TRANSIENT, "its answer holds no token"),
        ((200, b"x" * 300_000), ErrorClass.TRANSIENT, "its answer is too long"),
    ],
)
async def test_no_token_is_told_by_cause(refused, kind, words, tmp_path, autojump_clock):
    server = TokenServer(refuse=refused)
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        (answer,) = {(a.error_class, a.error_message) for a in await calls(runtime, 3)}
        assert answer[0] is kind
        assert words in (answer[1] or "")
        assert "planted" not in (answer[1] or "")
        assert len(server.asked) == 1
        assert tokens_sent(runtime) == []


async def test_a_server_where_the_tenant_may_not_go_is_not_asked(server, tmp_path, autojump_clock):
    url = f"http://127.0.0.5:{TOKEN_PORT}/token"
    more: Tree = {"defaults": {"egress": {"deny_ranges": ["127.0.0.5/32"]}}}
    async with running(oauth2(tmp_path, more, token_url=url)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        with log_lines(tmp_path) as lines:
            answer = await runtime.http(SMALL)
        assert answer.error_class is ErrorClass.PERMANENT
        assert (answer.error_message or "").startswith(f"no credential for {URL}: no token of")
        assert (server.asked, runtime.upstream.events) == ([], [])
        (line,) = [line for line in lines() if line.get("audit")]
        assert (line["event"], line["tenant"]) == ("egress_refused", "acme")
        assert line["origin"] == f"http://127.0.0.5:{TOKEN_PORT}"


async def test_a_server_that_does_not_answer_is_a_timeout(server, tmp_path, autojump_clock):
    server.delay_s = 100
    async with running(oauth2(tmp_path, timeout_s=3)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        before_s = trio.current_time()
        answer = await runtime.http(SMALL)
        assert answer.error_class is ErrorClass.TIMEOUT
        assert "no answer within 3 s" in (answer.error_message or "")
        assert trio.current_time() - before_s == 3


async def test_failures_rest_and_the_next_token_serves(server, tmp_path, autojump_clock):
    server.refuse = (503, b"")
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        for _ in range(30):
            await runtime.http(SMALL)
            await trio.sleep(0.5)
        # 0.75 s, doubling: the ratio of chance is one half.
        waits = [
            later.at_s - earlier.at_s
            for earlier, later in zip(server.asked, server.asked[1:], strict=False)
        ]
        assert waits == [1, 1.5, 3, 6]
        server.refuse = None
        await trio.sleep(60)
        json_of(await runtime.http(SMALL))


async def test_while_it_cannot_be_refreshed_the_old_one_serves(server, tmp_path, autojump_clock):
    server.lifetime_s = 100
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        await runtime.http(SMALL)
        server.refuse = (500, b"")
        await trio.sleep(70)
        for _ in range(3):
            json_of(await runtime.http(SMALL))
            await trio.sleep(1)
        assert len(server.asked) >= 2
        await trio.sleep(30)
        assert (await runtime.http(SMALL)).error_class is ErrorClass.TRANSIENT


async def test_a_token_that_comes_too_late_is_none(server, tmp_path, autojump_clock):
    server.lifetime_s, server.delay_s = 1, 2
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        answer = await runtime.http(SMALL)
        assert answer.error_class is ErrorClass.TRANSIENT
        assert "had expired when it came" in (answer.error_message or "")


async def test_the_secret_is_read_anew_for_each_question(server, tmp_path, autojump_clock):
    server.lifetime_s = 10
    async with running(oauth2(tmp_path, client_auth="body")) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        await runtime.http(SMALL)
        (tmp_path / "client-secret").write_text("planted-rotated")
        await trio.sleep(20)
        await runtime.http(SMALL)
        secrets = [asked.fields["client_secret"] for asked in server.asked]
        assert secrets == ["planted-client-secret", "planted-rotated"]


async def test_a_reload_keeps_the_token(server, tmp_path, autojump_clock):
    async with running(oauth2(tmp_path)) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        await runtime.http(SMALL)
        runtime.runtime.take_up(oauth2(tmp_path))
        await runtime.http(SMALL)
        assert len(server.asked) == 1
        runtime.runtime.take_up(oauth2(tmp_path, scope="x"))
        await runtime.http(SMALL)
        assert len(server.asked) == 2


async def test_each_workspace_that_has_its_own_asks_for_itself(
    server, tmp_path: Path, autojump_clock
):
    config = oauth2(tmp_path)
    acme = config.tenants["acme"]
    own = {"w": dict(acme.credentials)}
    acme.workspace_credentials.update(own)
    async with running(config) as runtime:
        runtime.network.handlers[TOKEN_PORT] = server.handle
        for workspace in (None, "w", "other", "w"):
            await runtime.http(SMALL, workspace_id=workspace)
        assert [text[-1] for text in tokens_sent(runtime)] == ["1", "2", "1", "2"]
        scopes = {
            (p["tenant"], p["workspace"]) for p in runtime.runtime.pools() if "4800" in p["origin"]
        }
        assert scopes == {("acme", ""), ("acme", "w")}


async def test_what_is_logged_names_no_token(server, tmp_path, autojump_clock):
    with log_lines(tmp_path) as lines:
        async with running(oauth2(tmp_path)) as runtime:
            runtime.network.handlers[TOKEN_PORT] = server.handle
            server.refuse = (401, b'{"error":"invalid_client","error_description":"planted"}')
            await runtime.http(SMALL)
        (line,) = [line for line in lines() if line["event"] == "no token could be had"]
        assert (line["tenant"], line["reason"]) == ("acme", "it answered 401 (invalid_client)")
        assert "planted" not in str(lines())


async def test_after_the_end_there_is_no_token(tmp_path, autojump_clock):
    async with running(oauth2(tmp_path)) as runtime:
        await trio.testing.wait_all_tasks_blocked()
        runtime.runtime._tokens.nursery = None
        answer = await runtime.http(SMALL)
        assert "the runtime is going away" in (answer.error_message or "")
