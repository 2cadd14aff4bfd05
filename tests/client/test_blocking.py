"""The blocking client: scripts, threads, closing, and where it refuses to run."""

import gc
import threading
import time

import pytest
import trio

from tests.support.client_threads import URL, echo, in_thread, until
from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    RuntimeUnavailable,
)
from vastar_client.request import GET, HTTPRequest
from vastar_client.testing import HOLD, FakeRuntime, respond
from vastar_client.wire import Disposition, ErrorClass


@pytest.fixture
def fake():
    with FakeRuntime(echo) as runtime:
        yield runtime


@pytest.fixture
def client(fake):
    with RuntimeClient(fake.config) as one:
        yield one


def test_it_connects_on_first_use_and_prints_nothing(fake, capfd):
    client = RuntimeClient(fake.config)
    assert client.execute_http(HTTPRequest("GET", URL)).status_code == 200
    client.close()
    client.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "head", "options"])
def test_every_verb(client, verb):
    response = getattr(client, verb)(URL, params={"q": 1}, timeout_s=5)
    assert response.headers["x-method"] == verb.upper()
    assert response.headers["x-url"] == URL + "?q=1"


def test_many_health_and_execute(client, fake):
    urls = [f"{URL}/{n}" for n in range(50)]
    assert [r.headers["x-url"] for r in client.execute_many(map(GET, urls))] == urls
    assert client.health() == fake.health
    with pytest.raises(ConnectorException, match="the handler of the FakeRuntime raised"):
        client.execute("db", "query")


def test_a_broken_request_among_many_is_a_value_as_well(client):
    first, broken, last = client.execute_many([GET(URL), HTTPRequest("GET", 5), GET(URL)])
    assert (first.ok, last.ok) == (True, True)
    assert isinstance(broken, ConnectorException)
    assert broken.error_class is ErrorClass.INVALID_REQUEST
    assert isinstance(broken.__cause__, TypeError)


def test_in_memory_without_any_socket():
    with RuntimeClient(dial=FakeRuntime([b'{"n":1}']).dial) as client:
        assert client.execute("db", "query", {"sql": "x"}).json() == {"n": 1}


def test_connect_is_idempotent(client, fake):
    client.connect()
    client.connect()
    client.get(URL)
    assert len(fake._peers) == 1


def test_failures_are_raised_in_the_calling_thread():
    said = ConnectorException("no", ErrorClass.RATE_LIMITED, retry_after_ms=5)
    with (
        RuntimeClient(dial=FakeRuntime([said]).dial) as client,
        pytest.raises(ConnectorException, match="no") as caught,
    ):
        client.get(URL)
    assert caught.value.retry_after_ms == 5


def test_no_runtime_and_then_one(tmp_path):
    client = RuntimeClient(RuntimeConfig(socket_path=str(tmp_path / "none"), use_environment=False))
    for _ in range(2):
        with pytest.raises(RuntimeUnavailable, match="there is no such socket"):
            client.get(URL)
    with pytest.raises(RuntimeUnavailable), client:
        pass
    with FakeRuntime(echo) as fake:
        client.config = fake.config
        assert client.get(URL).ok
        client.close()


async def _never():
    await trio.sleep_forever()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get(URL, timeout_s=0.02),
        lambda client: client.execute("db", "query", timeout_s=0.02),
        lambda client: client.health(timeout_s=0.02),
    ],
    ids=["http", "execute", "health"],
)
def test_a_first_connection_takes_no_longer_than_the_call_may(call):
    client = RuntimeClient(dial=_never)
    begin = time.monotonic()
    with pytest.raises(RuntimeUnavailable, match=r"no connection .* within 0\.02 s") as caught:
        call(client)
    assert time.monotonic() - begin < 2
    assert caught.value.disposition is Disposition.NOT_SENT
    client.close()


def test_closing_ends_an_opening_that_hangs():
    client = RuntimeClient(dial=_never)
    thread, caught = in_thread(client.connect)
    until(lambda: client._connected is not None)
    client.close()
    thread.join()
    assert isinstance(caught[0], ConnectionClosed)
    assert caught[0].disposition is Disposition.NOT_SENT


def test_the_time_that_the_first_connection_took_is_the_calls():
    fake = FakeRuntime([respond(), respond()])

    async def slow():
        await trio.sleep(0.2)
        return await fake.dial()

    client = RuntimeClient(dial=slow)
    assert client.get(URL, timeout_s=5).ok
    left_ms = fake.messages[0].deadline_at_ms - time.time() * 1000
    assert left_ms < 4801
    client.close()
    client = RuntimeClient(dial=slow)
    assert client.post(URL, body=iter([b"x"])).ok
    left_ms = fake.messages[1].deadline_at_ms - time.time() * 1000
    assert left_ms > 590_000  # a body in pieces has a time of its own
    client.close()


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_timeout_that_is_none_is_named_before_anything_is_opened(timeout_s):
    client = RuntimeClient(dial=_never)
    for call in (
        lambda: client.get(URL, timeout_s=timeout_s),
        lambda: client.execute("db", "query", timeout_s=timeout_s),
        lambda: client.health(timeout_s=timeout_s),
    ):
        with pytest.raises(ValueError, match=f"timeout_s is {timeout_s!r}: it must be a number"):
            call()


def test_all_clients_share_one_thread(fake):
    with RuntimeClient(fake.config) as one, RuntimeClient(fake.config) as other:
        assert one.get(URL).ok
        assert other.get(URL).ok
        assert len(fake._peers) == 2, "each has its own connection"
    names = [t.name for t in threading.enumerate()]
    assert names.count("vastar-client") == 1


def test_sixteen_threads_share_one_client(client, fake):
    wrong = []

    def work(n):
        for i in range(25):
            url = f"{URL}/{n}/{i}"
            if client.get(url).headers["x-url"] != url:
                wrong.append(url)

    threads = [in_thread(lambda n=n: work(n)) for n in range(16)]
    for thread, _ in threads:
        thread.join()
    assert [caught for _, (caught,) in threads] == [None] * 16
    assert wrong == []
    assert len(fake.requests) == 400
    assert len(fake._peers) == 1


def test_threads_that_open_together_make_one_connection():
    fake = FakeRuntime(echo)
    dials = []

    async def dial():
        dials.append(1)
        return await fake.dial()

    client = RuntimeClient(dial=dial)
    threads = [in_thread(client.connect) for _ in range(8)]
    for thread, _ in threads:
        thread.join()
    assert [caught for _, (caught,) in threads] == [None] * 8
    assert dials == [1]
    client.close()


def test_close_fails_calls_in_flight_and_the_next_call_connects_again():
    with FakeRuntime([HOLD, respond()]) as fake:
        client = RuntimeClient(fake.config)
        thread, caught = in_thread(lambda: client.get(URL))
        until(lambda: fake.held)
        client.close()
        thread.join()
        assert isinstance(caught[0], ConnectionClosed)
        assert caught[0].disposition is Disposition.SENT_NO_RESPONSE
        assert client.get(URL).ok
        client.close()


def test_a_restart_of_the_runtime_is_survived(client, fake):
    assert client.get(URL).ok
    fake.disconnect()
    until(lambda: client._connected.client._link._session is None)
    assert client.get(URL).ok


def test_a_deadline_bounds_the_wait():
    with RuntimeClient(dial=FakeRuntime([HOLD]).dial) as client:
        begin = time.monotonic()
        with pytest.raises(CallTimeout):
            client.get(URL, timeout_s=0.01)
        assert time.monotonic() - begin < 5


def test_a_forgotten_client_closes_its_connection(fake):
    client = RuntimeClient(fake.config)
    client.get(URL)
    connected = client._connected
    del client
    gc.collect()
    until(lambda: connected.ended)


def test_a_bug_in_the_background_is_logged_and_the_client_goes_on(caplog):
    fake = FakeRuntime(echo)
    client = RuntimeClient(dial=fake.dial)
    client.get(URL)
    connected = client._connected
    session = connected.client._link._session
    session._hand_out = None  # the next answer meets a bug
    with pytest.raises(ConnectionClosed):
        client.get(URL)
    until(lambda: connected.ended)
    assert "bug of the client" in caplog.text
    assert client.get(URL).ok
    client.close()
