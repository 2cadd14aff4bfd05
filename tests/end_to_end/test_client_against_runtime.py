"""Both clients against the real runtime: a process of its own, real sockets, a real upstream.

Each test holds for the blocking client and for the async one on Trio and on asyncio.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.support import leaks
from tests.support.commands import end, environment, serving
from tests.support.upstream import threaded_upstream
from vastar_client import (
    AsyncRuntimeClient,
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    Disposition,
    ErrorClass,
    HTTPRequest,
    HTTPStatusError,
    RuntimeClient,
    RuntimeConfig,
    RuntimeUnavailable,
)

BIG = bytes(range(256)) * 32_768
KINDS = ["blocking", "trio", "asyncio"]


class FromThreads:
    """The async client in an event loop of its own, called like the blocking one."""

    def __init__(self, portal: Any, client: AsyncRuntimeClient) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **options: self._portal.call(partial(method, *args, **options))

    def start(self, name: str, *args: object) -> Future[Any]:
        """The call as a future, which can be cancelled."""
        future: Future[Any] = self._portal.start_task_soon(getattr(self._client, name), *args)
        return future


@contextmanager
def opened(kind: str, config: RuntimeConfig) -> Iterator[Any]:
    """A connected client of this kind."""
    if kind == "blocking":
        with RuntimeClient(config) as client:
            yield client
        return
    with (
        start_blocking_portal(kind) as portal,
        portal.wrap_async_context_manager(AsyncRuntimeClient(config)) as client,
    ):
        yield FromThreads(portal, client)


@contextmanager
def in_flight(call: Any, count: int) -> Iterator[list[Future[Any]]]:
    """`count` times `call` in threads of their own."""
    with ThreadPoolExecutor(count) as pool:
        yield [pool.submit(call) for _ in range(count)]


def configured(path: Any, **fields: Any) -> RuntimeConfig:
    return RuntimeConfig(socket_path=str(path), use_environment=False, **fields)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Any]:
    with threaded_upstream() as server:
        yield server


@pytest.fixture(scope="module")
def url(upstream: Any) -> str:
    return f"http://127.0.0.1:{upstream.port}"


IMPATIENT = """
# Dozens of tests make calls that fail, to one upstream: no circuit and no cooldown shall stand in
# the way of the next one, and nobody wants to sit through backoffs.
[defaults.breaker]
mode = "off"
[defaults.cooldown]
mode = "off"
[defaults.retry]
base_s = 0.001
throttled_base_s = 0.001
retry_after_max_s = 0.5
"""


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("runtime")
    path = str(place / "runtime.sock")
    (place / "vastar.toml").write_text(IMPATIENT)
    served = serving("--socket", path, "--config", str(place / "vastar.toml"))
    with served as process, leaks.keep(process.pid):
        yield path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["native", "json"])
def client(kind: str, socket_path: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(kind, configured(socket_path, payload_format=request.param)) as one:
        yield one


@pytest.mark.parametrize(
    ("target", "error_class", "message"),
    [
        ("http://127.0.0.1:1/", ErrorClass.TRANSIENT, "connection refused"),
        ("ftp://127.0.0.1/", ErrorClass.INVALID_REQUEST, "scheme 'ftp' is not supported"),
        ("http://no-such-host.invalid/", ErrorClass.TRANSIENT, "no-such-host.invalid"),
        ("http://[::1/", ErrorClass.INVALID_REQUEST, "Invalid URL"),
        ("/relative", ErrorClass.INVALID_REQUEST, "Invalid URL"),
        ("", ErrorClass.INVALID_REQUEST, "Invalid URL: it is empty"),
    ],
    ids=["refused", "scheme", "host", "brackets", "relative", "empty"],
)
def test_what_never_reaches_an_upstream(client, target, error_class, message):
    with pytest.raises(ConnectorException, match=message) as caught:
        client.post(target, body="x", timeout_s=10)
    assert caught.value.error_class is error_class
    assert caught.value.disposition is Disposition.NOT_SENT
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": {"Bad Name": "x"}}, "Bad Name"),
        ({"headers": {"X": "a\r\nInjected: 1"}}, "X"),
        ({"headers": {"Content-Length": "7"}, "body": "x"}, "(?i)content-length"),
    ],
)
def test_headers_that_cannot_be_sent(client, url, upstream, options, message):
    count = len(upstream.events)
    with pytest.raises(ConnectorException, match=message) as caught:
        client.post(f"{url}/echo", **options)
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST
    assert caught.value.disposition is Disposition.NOT_SENT
    assert not [e for e in upstream.events[count:] if e["ev"] == "req"]


@pytest.mark.parametrize("status", [204, 304, 400, 404, 429, 500, 503])
def test_every_status_is_an_answer(client, url, status):
    response = client.get(f"{url}/status/{status}")
    assert (response.status_code, response.ok) == (status, status < 400)
    assert response.disposition is Disposition.COMPLETED
    if status >= 400:
        assert response.text == f"status body {status}"
        with pytest.raises(HTTPStatusError) as caught:
            response.raise_for_status()
        assert caught.value.retry_after_ms == (1000 if status in {429, 503} else 0)
        assert caught.value.request_id == response.request_id


def test_a_request_arrives_as_it_was_meant(client, url):
    response = client.put(
        f"{url}/echo",
        params={"q": "ä b", "n": [1, 2]},
        json={"text": "é"},
        headers=[("X-Two", "1"), ("X-Two", "2")],
        timeout_s=10,
    )
    seen = response.json()
    assert (seen["method"], seen["target"]) == ("PUT", "/echo?q=%C3%A4+b&n=1&n=2")
    assert json.loads(seen["body"]) == {"text": "é"}
    values = [value for name, value in seen["headers"] if name.lower() == "x-two"]
    assert ", ".join(values) == "1, 2"


def test_binary_bodies_are_exact_both_ways(client, url):
    assert client.get(f"{url}/binary").body == bytes(range(256))
    seen = client.post(f"{url}/echo", body=bytes(range(256))).json()
    assert base64.b64decode(seen["body_b64"]) == bytes(range(256))


def test_eight_mebibytes_both_ways(client, url, upstream):
    count = len(upstream.events)
    assert client.put(f"{url}/status/200", body=memoryview(BIG), timeout_s=20).ok
    assert [e["blen"] for e in upstream.events[count:] if e["ev"] == "req"] == [len(BIG)]
    got = client.get(f"{url}/big?n={len(BIG)}", timeout_s=20)
    assert got.body == b"y" * len(BIG)


def test_an_answer_over_the_frame_limit_says_so_and_the_client_goes_on(client, url):
    with pytest.raises(ConnectorException, match="exceeds the frame limit") as caught:
        client.get(f"{url}/big?n=11000000")
    assert caught.value.error_class is ErrorClass.PERMANENT
    assert client.get(f"{url}/small").ok


def test_a_body_that_fits_no_frame_goes_in_pieces(client, url, upstream, request):
    """In the native format; JSON is for runtimes that take no pieces."""
    if request.node.callspec.params["client"] == "native":
        assert client.put(f"{url}/small", body=bytes(67_200_000)).ok
        received = [event for event in upstream.events if event["ev"] == "req"][-1]
        assert received["blen"] == 67_200_000
    else:
        with pytest.raises(ConnectorException, match="exceeds the limit of 67108864") as caught:
            client.put(f"{url}/small", body=bytes(67_200_000))
        assert caught.value.error_class is ErrorClass.INVALID_REQUEST
        assert caught.value.disposition is Disposition.NOT_SENT
    assert client.get(f"{url}/small").ok


def test_redirects(client, url):
    followed = client.get(f"{url}/redir?to=/echo?from=here")
    assert followed.json()["target"] == "/echo?from=here"
    assert followed.url in {f"{url}/echo?from=here", None}
    kept = client.get(f"{url}/redir", follow_redirects=False)
    assert (kept.status_code, kept.headers["Location"]) == (302, "/echo?from=redir")
    with pytest.raises(ConnectorException, match="redirects") as caught:
        client.get(f"{url}/loop")
    assert caught.value.error_class is ErrorClass.PERMANENT


def test_compression_and_repeated_headers(client, url):
    assert client.get(f"{url}/gzip").json() == {"gz": True}
    assert client.get(f"{url}/gzip", decode_content=False).headers["content-encoding"] == "gzip"
    answer = client.get(f"{url}/dup")
    assert answer.headers["set-cookie"] == "a=1\nb=2"
    assert [v for k, v in answer.headers_list if k.lower() == "x-d"] == ["first", "second", "third"]


@pytest.mark.parametrize("path", ["/sleep?ms=30000", "/drip?n=1000", "/hang?s=30"])
def test_a_timeout_is_the_runtimes_and_comes_in_time(client, url, upstream, path):
    count = sum(e["ev"] == "client_closed_while_busy" for e in upstream.events)
    with pytest.raises(CallTimeout, match="timed out") as caught:  # the client's own says otherwise
        client.get(url + path, timeout_s=0.3)
    assert caught.value.disposition in {Disposition.SENT_NO_RESPONSE, Disposition.RESPONSE_STARTED}
    upstream.wait_for("client_closed_while_busy", count=count + 1)


def test_many_in_order_with_failures_among_them(client, url):
    requests = [HTTPRequest("GET", f"{url}/echo?n={n}") for n in range(600)]
    requests[100] = HTTPRequest("GET", "ftp://nothing/")
    requests[200] = HTTPRequest("GET", None)  # type: ignore[arg-type]
    requests[300] = HTTPRequest("GET", f"{url}/sleep?ms=30000", timeout_ms=500)
    answers = client.execute_many(requests)
    for n, answer in enumerate(answers):
        if n in {100, 200, 300}:
            assert isinstance(answer, ConnectorException)
        else:
            assert answer.json()["target"] == f"/echo?n={n}"
    assert isinstance(answers[300], CallTimeout)


def test_health_and_connectors(client):
    assert client.health().healthy
    assert client.execute("vastar", "status").json()
    with pytest.raises(ConnectorException, match="Unknown connector: nonsense") as caught:
        client.execute("nonsense", "x")
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST


def test_a_cancelled_call_is_cancelled_upstream(kind, socket_path, url, upstream):
    count = sum(e["ev"] == "client_closed_while_busy" for e in upstream.events)
    with opened(kind, configured(socket_path)) as client:
        slow = HTTPRequest("GET", f"{url}/sleep?ms=30000&tag={kind}")
        if kind == "blocking":
            with in_flight(lambda: client.execute_http(slow), 1) as (call,):
                upstream.wait_for("sleep_start", tag=kind)
                client.close()
                assert isinstance(call.exception(10), ConnectionClosed)
        else:
            call = client.start("execute_http", slow)
            upstream.wait_for("sleep_start", tag=kind)
            call.cancel()
        assert client.get(f"{url}/small").ok
    upstream.wait_for("client_closed_while_busy", count=count + 1)


def test_a_runtime_killed_under_calls_and_started_again(kind, tmp_path, url, upstream):
    path = tmp_path / "runtime.sock"
    sent = len([e for e in upstream.events if e["ev"] == "sleep_start"])
    config = configured(path)
    with serving("--socket", str(path)) as process, opened(kind, config) as client:
        with in_flight(lambda: client.post(f"{url}/sleep?ms=30000"), 3) as calls:
            upstream.wait_for("sleep_start", count=sent + 3)
            process.send_signal(signal.SIGKILL)
            for call in calls:
                error = call.exception(10)
                assert isinstance(error, ConnectionClosed)
                assert error.error_class is ErrorClass.TRANSIENT
                assert error.disposition is Disposition.SENT_NO_RESPONSE
                assert error.request_id
        process.wait(10)
        with pytest.raises(RuntimeUnavailable, match=r"vastar_runtime start --socket") as caught:
            client.get(f"{url}/small", timeout_s=0.3)
        assert caught.value.disposition is Disposition.NOT_SENT
        with (
            in_flight(lambda: client.get(f"{url}/small", timeout_s=15), 1) as (waiting,),
            serving("--socket", str(path)),
        ):
            assert waiting.result(15).ok, "a call that waits is served by the new one"
            assert client.get(f"{url}/small").ok
            assert client.health().healthy


def test_a_runtime_that_drains(kind, tmp_path, url, upstream):
    path = tmp_path / "runtime.sock"
    sent = len([e for e in upstream.events if e["ev"] == "sleep_start"])
    with serving("--socket", str(path)) as process, opened(kind, configured(path)) as client:
        with in_flight(lambda: client.get(f"{url}/sleep?ms=700"), 1) as (slow,):
            upstream.wait_for("sleep_start", count=sent + 1)
            process.send_signal(signal.SIGTERM)
            error: ConnectorException | None = None
            while error is None:
                try:
                    client.get(f"{url}/small")
                except ConnectorException as raised:
                    error = raised
            assert error.error_class is ErrorClass.TRANSIENT
            assert error.disposition is Disposition.NOT_SENT
            assert "draining" in error.message
            assert slow.result(10).json()["slept"] == 700
        assert end(process)[0] == 0
        with pytest.raises(RuntimeUnavailable):
            client.get(f"{url}/small", timeout_s=0.2)


def test_two_clients_in_two_processes(socket_path, url):
    script = f"""
from vastar_client import GET, RuntimeClient, RuntimeConfig
config = RuntimeConfig(socket_path={socket_path!r}, use_environment=False)
with RuntimeClient(config) as client:
    for _ in range(3):
        answers = client.execute_many(GET("{url}/echo?n=%d" % n) for n in range(100))
        assert [a.json()["target"] for a in answers] == ["/echo?n=%d" % n for n in range(100)]
print("good")
"""
    commands = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [command.communicate(timeout=30) for command in commands] == [("good\n", "")] * 2


def test_a_forked_child_beside_its_parents_calls(socket_path, url, upstream):
    with RuntimeClient(configured(socket_path)) as client:
        slow = threading.Thread(target=client.get, args=(f"{url}/sleep?ms=300&tag=fork",))
        slow.start()
        upstream.wait_for("sleep_start", tag="fork")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if client.get(f"{url}/small", timeout_s=10).ok else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert client.get(f"{url}/small").ok
        slow.join()
