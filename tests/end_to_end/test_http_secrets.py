"""Planted secrets are in no log line, no error message and no repr, whatever goes wrong."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.http_calls import NATIVE, ORIGIN, RAW_PORT, RAW_URL, native_payload, raw
from tests.support.running import Running, http_request, running
from tests.support.sessions import WALL_START_MS
from vastar_client.wire import ExecuteResponse
from vastar_runtime import logs
from vastar_runtime.calls import Call
from vastar_runtime.transport.fake import Reset

SECRET = "hunter2"  # part of every one of them


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[[], str]]:
    path = tmp_path / "log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    logs.configure("debug", "json", fd)
    yield path.read_text
    logs.configure("info", "console", 2)
    os.close(fd)


def payload(path: str = "/echo", origin: str = ORIGIN, **keys: object) -> dict[str, object]:
    """A call that carries a secret wherever one can be."""
    url = origin.replace("//", f"//user:{SECRET}-userinfo@") + path
    return {
        "url": f"{url}{'&' if '?' in path else '?'}api_key={SECRET}-query&x=1#{SECRET}-fragment",
        "method": "POST",
        "headers": {
            "Authorization": f"Bearer {SECRET}-authorization",
            "Cookie": f"sid={SECRET}-cookie",
            "X-Api-Key": f"{SECRET}-key",
        },
        "body": f'{{"password": "{SECRET}-body"}}',
        "query": {"token": f"{SECRET}-more"},
        **keys,
    }


CALLS: dict[str, object] = {
    "answered": payload(),
    "not found": payload("/nowhere"),
    "refused": payload(origin="http://127.0.0.1:1"),
    "closed": payload("/closenow"),
    "garbage": payload("/garbage"),
    "short": payload("/short"),
    "reset": payload("/reset"),
    "too large": payload("/big?n=11000000"),
    "timed out": payload("/hang", timeout_ms=50),
    "redirects": payload("/loop"),
    "redirect elsewhere": payload(f"/redir?to=http://u:{SECRET}-there@127.0.0.1:1/?key={SECRET}"),
    "no port": payload(origin="http://127.0.0.1:99999"),
    "no host": payload(origin="http://"),
    "no scheme": payload(origin=f"//user:{SECRET}@host"),
    "other scheme": payload(origin="ftp://h"),
    "bad method": payload(method="FROB"),
    "bad value": payload(headers={"Authorization": f"Bearer {SECRET}\r\nX: y"}),
    "bad name": payload(headers={f"Authorization: Bearer {SECRET}": ""}),
    "bad length": payload(headers={"Content-Length": "1", "Cookie": SECRET}),
    "bad type": payload(timeout_ms=SECRET),
    "bad json": f'{{"url": "http://h/?key={SECRET}", "body": "{SECRET}" '.encode(),
    "bad text": b'{"url":"http://h/","body":{"password":"%b\xff"}}' % SECRET.encode(),
    "bad number": b'{"url":"http://h/?key=%b","body":1e999}' % SECRET.encode(),
}


async def answers_of(runtime: Running) -> list[ExecuteResponse]:
    found = [await runtime.http(keys) for keys in CALLS.values()]
    native = native_payload(
        f"http://u:{SECRET}@127.0.0.1:1/?key={SECRET}",
        headers=[("Cookie", SECRET)],
        body=SECRET.encode(),
    )
    found.append(await runtime.http(native, **NATIVE))
    found.append(await runtime.http(native[:-8], **NATIVE))
    found.append(await runtime.http(payload(), deadline_at_ms=WALL_START_MS - 5))
    found.append(await runtime.http(payload(), connector_name="vastar", operation="nothing"))
    found.append(await runtime.http(payload(), idempotency_key=f"{SECRET}\n"))
    return found


async def test_no_secret_is_told(logged, autojump_clock):
    async with running() as runtime:
        head = f"HTTP/1.1 200 OK\r\nSet-Cookie: {SECRET}\r\nContent-Length: 99\r\n\r\n{SECRET}"
        runtime.network.handlers[RAW_PORT] = raw(head.encode(), Reset())
        answers = await answers_of(runtime)
        answers.append(await runtime.http(payload(origin=RAW_URL)))
        caller = runtime.caller()
        await caller.send(http_request(1, payload("/hang")))
        await runtime.upstream.wait_for("hang_start", count=2)
        await caller.close()
        await trio.testing.wait_all_tasks_blocked()
    for answer in answers:
        assert SECRET not in (answer.error_message or "")
    log = logged()
    assert log.count('"event":"call"') == len(answers) + 1
    assert SECRET not in log
    assert "dXNlc" not in log  # the userinfo in base64
    assert sum(answer.payload is not None for answer in answers) == 2


async def test_a_bug_tells_its_traceback_and_no_secret(logged, autojump_clock, monkeypatch):
    async def broken(*args: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError(f"cannot send {args!r}, Authorization: Bearer {SECRET}")

    async with running() as runtime:
        monkeypatch.setattr(type(runtime.runtime._transport), "exchange", broken)
        answer = await runtime.http(payload(), trace_id="tr-77")
        assert answer.error_message == "internal error"
    log = logged()
    assert '"event":"internal error"' in log
    assert "RuntimeError" in log
    assert log.count('"trace_id":"tr-77"') == 2
    assert SECRET not in log


async def test_values_that_hold_a_call_do_not_show_it(autojump_clock):
    seen: list[str] = []

    async with running() as runtime:
        connector = runtime.runtime._dispatcher.pipeline._connectors["http"]
        prepare = connector._preparer.prepare  # type: ignore[attr-defined]

        def spy(call: Call) -> object:
            prepared = prepare(call)
            seen.extend(map(repr, (call, *prepared, prepared[1].__rich_repr__())))
            return prepared

        connector._preparer.prepare = spy  # type: ignore[attr-defined]
        answer = await runtime.http(payload())
        seen.append(repr(answer))
    assert len(seen) == 5
    for shown in seen:
        assert SECRET not in shown


@pytest.mark.parametrize("style", ["json", "console"])
async def test_the_line_of_a_call_says_what_happened(style, tmp_path, autojump_clock):
    path = tmp_path / "log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    logs.configure("info", style, fd)
    try:
        async with running() as runtime:
            await runtime.http(
                {"url": f"{ORIGIN}/small"}, trace_id="tr-1", workspace_id="shop", tenant_id="acme"
            )
    finally:
        logs.configure("info", "console", 2)
        os.close(fd)
    (line,) = path.read_text().splitlines()
    for part in ("tr-1", "shop", "acme", ORIGIN, "200", "SUCCESS", "COMPLETED", "duration_us"):
        assert part in line
