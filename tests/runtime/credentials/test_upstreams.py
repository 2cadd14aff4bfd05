"""Each request gets the credential of its origin, and no redirect takes one along."""

import pytest
import trio

from tests.support.http_calls import json_of
from tests.support.running import UPSTREAM_PORT, URL, Running, running
from tests.support.token_server import TOKEN_PORT, TokenServer, credentials, oauth2
from vastar_client.wire import Disposition, ErrorClass

OTHER = f"http://127.0.0.2:{UPSTREAM_PORT}"


def sent(runtime: Running, name: str = "authorization") -> list[str | None]:
    """The values of a header in the requests that the upstream got."""
    return [
        {key.lower(): value for key, value in event["headers"]}.get(name)
        for event in runtime.upstream.seen("req")
    ]


@pytest.fixture
def static(tmp_path):
    (tmp_path / "key").write_text("planted-key")
    return credentials(tmp_path, {"value": "Bearer ${file:key}"})


async def test_a_call_gets_it_whatever_its_caller_sends(static, autojump_clock):
    async with running(static) as runtime:
        for headers in ({}, {"Authorization": "mine"}, {"AUTHORIZATION": "mine", "x": "1"}):
            json_of(await runtime.http({"url": f"{URL}/small", "headers": headers}))
        with_user = URL.replace("//", "//me:mine@")
        json_of(await runtime.http({"url": f"{with_user}/small"}))
        assert sent(runtime) == ["Bearer planted-key"] * 4


async def test_others_get_none_although_they_ask_for_the_same(static, autojump_clock):
    """What is made of a payload is kept by its bytes, for all tenants: no key is in there."""
    async with running(static) as runtime:
        payload = {"url": f"{URL}/small", "headers": {"Authorization": "mine"}}
        for tenant in ("acme", "other", "acme", ""):
            json_of(await runtime.http(payload, tenant_id=tenant))
        assert sent(runtime) == ["Bearer planted-key", "mine", "Bearer planted-key", "mine"]


async def test_it_stays_on_its_origin(static, autojump_clock):
    async with running(static) as runtime:
        json_of(await runtime.http({"url": f"{URL}/redir?to=/small"}))
        assert sent(runtime) == ["Bearer planted-key"] * 2
        json_of(await runtime.http({"url": f"{URL}/redir?to={OTHER}/small"}))
        assert sent(runtime)[2:] == ["Bearer planted-key", None]


async def test_it_is_not_picked_up_on_the_way_nor_after_it(static, autojump_clock):
    """Where a redirect leads is an upstream's choice, and it has no right to anybody's key."""
    async with running(static) as runtime:
        json_of(await runtime.http({"url": f"{OTHER}/redir?to={URL}/small"}))
        assert sent(runtime) == [None, None]
        there_and_back = f"{OTHER}/redir?to={URL}/small"
        json_of(await runtime.http({"url": f"{URL}/redir?to={there_and_back}"}))
        assert sent(runtime)[2:] == ["Bearer planted-key", None, None]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"headers": {"Host": "evil.test"}}, "the Host header names another site than"),
        ({"method": "TRACE"}, "TRACE has the answer repeat the credential"),
    ],
)
async def test_what_would_lead_it_elsewhere_is_refused(keys, words, static, autojump_clock):
    async with running(static) as runtime:
        answer = await runtime.http({"url": f"{URL}/small", **keys})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert words in (answer.error_message or "")
        assert sent(runtime) == []
        json_of(await runtime.http({"url": f"{URL}/small", **keys}, tenant_id="other"))


async def test_a_file_that_changes_is_read_again(static, tmp_path, autojump_clock):
    async with running(static) as runtime:
        await runtime.http({"url": f"{URL}/small"})
        (tmp_path / "key").write_text("planted-key-2")
        await runtime.http({"url": f"{URL}/small"})
        await trio.sleep(1)
        await runtime.http({"url": f"{URL}/small"})
        (tmp_path / "key").unlink()
        await trio.sleep(1)
        await runtime.http({"url": f"{URL}/small"})
        assert sent(runtime) == [
            "Bearer planted-key",
            "Bearer planted-key",
            "Bearer planted-key-2",
            "Bearer planted-key-2",
        ]


async def test_a_reload_brings_and_takes_credentials(static, tmp_path, autojump_clock):
    async with running() as runtime:
        await runtime.http({"url": f"{URL}/small"})
        runtime.runtime.take_up(static)
        await runtime.http({"url": f"{URL}/small"})
        (tmp_path / "key").unlink()
        with pytest.raises(ValueError, match="cannot be read"):
            runtime.runtime.take_up(static)
        await runtime.http({"url": f"{URL}/small"})
        runtime.runtime.take_up(credentials(tmp_path, {}, origin=OTHER))
        await runtime.http({"url": f"{URL}/small"})
        key = "Bearer planted-key"
        assert sent(runtime) == [None, key, key, None]


async def test_streams_get_it_too(static, autojump_clock):
    async with running(static) as runtime:
        answer = await runtime.http({"url": f"{URL}/sse?n=2"})
        assert answer.error_class is ErrorClass.SUCCESS
        assert sent(runtime) == ["Bearer planted-key"]


async def test_a_token_is_sent_and_one_that_is_refused_is_given_up(tmp_path, autojump_clock):
    config = oauth2(tmp_path)
    async with running(config) as runtime:
        server = TokenServer()
        runtime.network.handlers[TOKEN_PORT] = server.handle
        await runtime.http({"url": f"{URL}/small", "headers": {"Authorization": "mine"}})
        await runtime.http({"url": f"{URL}/status/401"})
        await runtime.http({"url": f"{URL}/small"})
        await trio.sleep(20)
        await runtime.http({"url": f"{URL}/status/401"})
        await runtime.http({"url": f"{URL}/small"})
        numbers = [1, 1, 1, 1, 2]
        assert sent(runtime) == [f"Bearer planted-token-{number}" for number in numbers]
        assert len(server.asked) == 2


async def test_without_a_token_nothing_is_sent(tmp_path, autojump_clock):
    async with running(oauth2(tmp_path)) as runtime:
        answer = await runtime.http({"url": f"{URL}/small"})
        assert answer.error_class is ErrorClass.TRANSIENT
        assert (answer.error_message or "").startswith(
            f"no credential for {URL}: no token of http://127.0.0.1:{TOKEN_PORT}: connect failed"
        )
        assert sent(runtime) == []
        assert runtime.upstream.events == []
        answer = await runtime.http({"url": f"{URL}/small"}, tenant_id="other")
        assert answer.error_class is ErrorClass.SUCCESS


async def test_the_answer_tells_when_to_come_back(tmp_path, autojump_clock):
    async with running(oauth2(tmp_path)) as runtime:
        server = TokenServer(refuse=(503, b""), headers=b"retry-after: 7\r\n")
        runtime.network.handlers[TOKEN_PORT] = server.handle
        answers = []
        for _ in range(3):
            answers.append(await runtime.http({"url": f"{URL}/small"}))
            await trio.sleep(1)
        assert {answer.error_class for answer in answers} == {ErrorClass.TRANSIENT}
        assert {answer.disposition for answer in answers} == {Disposition.NOT_SENT}
        assert [answer.retry_after_ms for answer in answers] == [7000, 6000, 5000]
        assert len(server.asked) == 1
