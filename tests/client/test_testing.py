"""The fake runtime that ships with the package: what a connector's author can do with it."""

import pytest

from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import ConnectorException, RuntimeUnavailable
from vastar_client.testing import HOLD, After, FakeRuntime, respond
from vastar_client.wire import Disposition, ErrorClass

URL = "http://api.test/x"


@pytest.mark.parametrize("payload_format", ["native", "json"])
def test_replies_in_turn_and_what_was_asked(payload_format):
    fake = FakeRuntime([respond(json={"n": 1}), respond(429, headers={"Retry-After": "2"})])
    with RuntimeClient(RuntimeConfig(payload_format=payload_format), dial=fake.dial) as client:
        assert client.post(URL, json={"q": "é"}, idempotency_key="k").json() == {"n": 1}
        assert client.get(URL, follow_redirects=False, decode_content=False).status_code == 429
        with pytest.raises(ConnectorException, match="FakeRuntime has no reply left for <HTTPReq"):
            client.get(URL)
    first, second, _ = fake.requests
    body = first.body if isinstance(first.body, str) else first.body.decode()
    assert (first.method, first.url, body) == ("POST", URL, '{"q":"é"}')
    assert first.get_header("content-type") == "application/json"
    assert first.idempotency_key == "k"
    assert (second.follow_redirects, second.decode_content) == (False, False)
    assert (first.follow_redirects, first.decode_content) == (True, True)


def test_a_function_decides():
    fake = FakeRuntime(lambda request: respond(404 if "missing" in request.url else 200))
    with fake, RuntimeClient(fake.config) as client:
        assert client.get(URL).status_code == 200
        assert client.get(URL + "/missing").status_code == 404


def test_an_answer_with_json_keeps_its_own_content_type():
    assert respond(json=1).headers == {"content-type": "application/json"}
    assert respond(json=1, headers={"Content-Type": "a/b"}).headers == {"content-type": "a/b"}


def test_failures_of_the_runtime_itself():
    error = ConnectorException(
        "circuit open", ErrorClass.TRANSIENT, disposition=Disposition.NOT_SENT, retry_after_ms=9
    )
    with (
        RuntimeClient(dial=FakeRuntime([error]).dial) as client,
        pytest.raises(ConnectorException, match="circuit open") as caught,
    ):
        client.get(URL)
    assert (caught.value.disposition, caught.value.retry_after_ms) == (Disposition.NOT_SENT, 9)


def test_a_mistake_in_the_function_shows_in_the_call():
    with (
        FakeRuntime(lambda _: 1 / 0) as fake,
        RuntimeClient(fake.config) as client,
        pytest.raises(ConnectorException, match="raised ZeroDivisionError"),
    ):
        client.get(URL)


def test_a_delay_on_a_real_clock():
    with FakeRuntime([After(0.01, respond())]) as fake, RuntimeClient(fake.config) as client:
        assert client.get(URL).ok


async def test_a_delay_on_a_virtual_clock_takes_no_time(autojump_clock):
    fake = FakeRuntime([After(3600, respond(body="patience"))])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await client.get(URL, timeout_s=4000)).text == "patience"


async def test_a_runtime_that_is_switched_off():
    fake = FakeRuntime()
    fake.available = False
    with pytest.raises(RuntimeUnavailable, match="switched off"):
        await AsyncRuntimeClient(dial=fake.dial).__aenter__()


def test_the_socket_exists_inside_the_block_only():
    fake = FakeRuntime([HOLD])
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        _ = fake.config
    with fake:
        config = fake.config
        assert config.use_environment is False
    with pytest.raises(RuntimeUnavailable, match="no such socket"):
        RuntimeClient(config).connect()
