"""Secrets planted everywhere, the main scenarios, all output looked through: none is told.

Each secret holds `planted-`. The answers' bodies may repeat what the upstream got, which is the
upstream's choice; everything else that leaves the runtime may not: log lines in both styles at
debug, error messages, metrics, status, check-config, and the `repr` of every value of ours that is
alive while calls are under way. `tests/conftest.py` holds every other test to the same.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.support import planted
from tests.support.commands import end, serving, vastar
from tests.support.http_calls import RAW_PORT, RAW_URL, raw
from tests.support.policy_files import Tree, load_tree
from tests.support.running import UPSTREAM_PORT, URL, Running, http_request, running
from tests.support.token_server import TOKEN_PORT, TOKEN_URL, TokenServer
from tests.support.workers import wait_until
from vastar_client.wire import ExecuteResponse
from vastar_runtime import logs
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import ConfigError, RuntimeConfig, load_config, render, render_for
from vastar_runtime.transport.fake import Reset

OTHER = f"http://127.0.0.2:{UPSTREAM_PORT}"
TOKENED = f"http://127.0.0.3:{UPSTREAM_PORT}"


def configured(folder: Path, **more: object) -> Tree:
    """A file with credentials of every kind, whose secrets are planted beside it."""
    (folder / "key").write_text("planted-key\n")
    (folder / "client-secret").write_text("planted-client-secret\n")
    by_file = {
        "value": "Bearer ${file:key}",
        "headers": {"X-Api-Key": "${env:PLANTED_KEY}", "Cookie": "sid=${file:key}"},
    }
    oauth2 = {
        "token_url": TOKEN_URL,
        "client_id": "me",
        "client_secret": "${file:client-secret}",
        "timeout_s": 1,
    }
    credentials = {URL: by_file, RAW_URL: by_file, TOKENED: {"oauth2": oauth2}}
    return {
        "proxy": {"all": "http://me:planted-proxy@proxy.test:1", "no_proxy": ["127.0.0.0/8"]},
        "tenants": {"acme": {"credentials": credentials, "tenant_rate_limit": {"limit": 10_000}}},
        **more,
    }


def payload(path: str, origin: str = URL, **keys: object) -> dict[str, object]:
    """A call that carries a secret of its caller's wherever one can be."""
    with_user = origin.replace("//", "//me:planted-userinfo@")
    return {
        "url": f"{with_user}{path}{'&' if '?' in path else '?'}api_key=planted-query",
        "method": "POST",
        "headers": {
            "Authorization": "Bearer planted-authorization",
            "Cookie": "sid=planted-cookie",
            "X-Api-Key": "planted-api-key",
        },
        "body": '{"password": "planted-body"}',
        **keys,
    }


CALLS: dict[str, dict[str, object]] = {
    "good": payload("/echo"),
    "with a token": payload("/echo", TOKENED),
    "without credential": payload("/echo", OTHER),
    "401": payload("/status/401"),
    "401 of a token": payload("/status/401", TOKENED),
    "503": payload("/status/503"),
    "redirect": payload("/redir?to=/echo"),
    "redirect elsewhere": payload(f"/redir?to={OTHER.replace('//', '//u:planted-there@')}/echo"),
    "redirects without end": payload("/loop"),
    "timeout": payload("/hang", timeout_ms=50),
    "refused": payload("/", "http://127.0.0.1:1"),
    "garbage": payload("/garbage"),
    "reset": payload("/", RAW_URL),
    "another site": payload("/echo", headers={"Host": "planted-host"}),
    "repeated": payload("/echo", method="TRACE", body=None),
    "bad value": payload("/", headers={"Authorization": "planted-value\r\nX: y"}),
    "bad name": payload("/", headers={"Authorization: planted-name": ""}),
    "bad url": payload("/", "ftp://h.test"),
    "unknown key": payload("/", timeout_ms="planted-number"),
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", "planted-variable")


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    path = tmp_path / "log"
    with path.open("w+b") as file:
        logs.configure("debug", request.param, file.fileno())
        yield path.read_text
        logs.configure("info", "console", 2)


async def control(runtime: Running, operation: str, **about: object) -> str:
    """What the runtime tells of itself, as text."""
    caller = runtime.caller(uid=os.getuid())
    asked = http_request(1, about, connector_name="vastar", operation=operation)
    await caller.send(asked)
    answer = await caller.receive()
    assert isinstance(answer, ExecuteResponse)
    assert answer.error_message is None
    await caller.close()
    return bytes(answer.payload).decode()  # type: ignore[arg-type]


async def crash(runtime: Running, patch: pytest.MonkeyPatch) -> ExecuteResponse:
    """A bug in the middle of a call, whose traceback quotes what it was given."""

    async def broken(*args: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError(f"no way: {args!r}, Authorization: Bearer planted-in-a-bug")

    with patch.context() as patched:
        patched.setattr(type(runtime.runtime._transport), "exchange", broken)
        answer = await runtime.http(payload("/echo"))
    assert answer.error_message == "internal error"
    return answer


def values_while_under_way(runtime: Running) -> None:
    """Every value of ours that is alive says nothing; there are many, with secrets in them."""
    count, found = planted.values_that_show()
    assert count > 500
    assert found == []
    assert runtime.runtime.state.calls_in_flight == 6


async def test_nothing_that_leaves_the_runtime_tells_a_secret(
    secrets, log, tmp_path, monkeypatch, autojump_clock
):
    config = load_tree(configured(tmp_path), tmp_path).config
    answers: dict[str, ExecuteResponse] = {}
    async with running(config) as runtime:
        server = TokenServer()
        runtime.network.handlers[TOKEN_PORT] = server.handle
        runtime.network.handlers[RAW_PORT] = raw(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: planted-set\r\nContent-Length: 99\r\n\r\nplanted-part",
            Reset(),
        )
        for name, keys in CALLS.items():
            answers[name] = await runtime.http(keys, headers=[("authorization", "planted-caller")])
        answers["crash"] = await crash(runtime, monkeypatch)
        await denied(runtime, server, answers)
        reload(runtime, tmp_path)
        hanging = [runtime.caller() for _ in range(6)]
        for caller, origin in zip(hanging, (URL, TOKENED, OTHER) * 2, strict=True):
            # What has no body is kept for the next call that asks for the same.
            body = {} if caller in hanging[:3] else {"method": "GET", "body": None}
            await caller.send(http_request(1, payload("/hang", origin, **body)))
        await runtime.upstream.wait_for("hang_start", count=1 + len(hanging))
        values_while_under_way(runtime)
        told = [
            await control(runtime, "status"),
            await control(runtime, "status", verbose=True, metrics=True),
            (await runtime.runtime.metrics()).decode(),
        ]
        for caller in hanging:
            await caller.close()
        await trio.testing.wait_all_tasks_blocked()
        sent = str(runtime.upstream.events)
    # The secrets were there, and went where they belong.
    for each in ("planted-key", "planted-variable", "planted-token-1", "planted-cookie"):
        assert each in sent
    assert "planted-client-secret" not in sent
    for each in (*told, *(str(answer.error_message) for answer in answers.values()), log()):
        planted.refuse(each)
    assert len(log().splitlines()) > len(answers)
    good = {name for name, answer in answers.items() if answer.error_message is None}
    assert {"good", "with a token", "401", "redirect"} <= good
    assert {"timeout", "refused", "reset", "crash", "another site", "repeated"}.isdisjoint(good)


async def denied(
    runtime: Running, server: TokenServer, answers: dict[str, ExecuteResponse]
) -> None:
    """Tokens that cannot be had, for each reason, with secrets in what the server says."""
    says = (
        b'{"error":"planted-error","error_description":"planted-words","access_token":"planted-"}'
    )
    runtime.runtime._upstreams.book.find("acme", None, TOKENED).source._state._token = None  # type: ignore[union-attr]
    for refused in ((401, says), (500, says), (200, says), (302, b"")):
        server.refuse = refused
        await trio.sleep(400)
        answers[f"no token: {refused}"] = await runtime.http(payload("/echo", TOKENED))
    server.refuse = None
    server.delay_s = 100
    await trio.sleep(400)
    answers["no token: timeout"] = await runtime.http(payload("/echo", TOKENED))
    server.delay_s = 0
    await trio.sleep(400)
    answers["a token again"] = await runtime.http(payload("/echo", TOKENED))


BAD: list[Tree] = [
    {"tenants": {"a": {"credentials": {URL: {"value": "Bearer planted-literal"}}}}},
    {"tenants": {"a": {"credentials": {URL: {"value": "planted-${env:X}"}}}}},
    {"tenants": {"a": {"credentials": {URL: {"headers": {"X": "planted-literal"}}}}}},
    {"tenants": {"a": {"credentials": {URL: "planted-in-place"}}}},
    {"tenants": {"a": {"credentials": {URL.replace("//", "//u:planted-user@"): {}}}}},
    {"tenants": {"a": {"credentials": {URL: {"oauth2": {"client_secret": "planted-s"}}}}}},
    {"tenants": {"a": {"credentials": {URL: {"value": "${file:bad}"}}}}},
    {"proxy": {"all": "http://me:planted-proxy@:x"}},
]


def bad_configs(folder: Path) -> list[str]:
    """What is said of configurations that are refused."""
    (folder / "bad").write_text("planted-one\nplanted-two")
    words = []
    for tree in BAD:
        with pytest.raises(ConfigError) as error:
            Refusing(load_tree(tree, folder).config)
        words += [str(error.value), repr(error.value), repr(error.value.problems)]
    return words


class Refusing:
    """Refuses what a runtime refuses beyond the file."""

    def __init__(self, config: RuntimeConfig) -> None:
        from vastar_runtime.unusable import refuse_unusable  # noqa: PLC0415 - for one test

        refuse_unusable(config, {})


def reload(runtime: Running, folder: Path) -> None:
    """Take up other secrets; files that are bad are refused, and say nothing of them."""
    for words in bad_configs(folder):
        planted.refuse(words.replace("planted-${env", ""))
    new = configured(folder)
    (folder / "key").write_text("planted-key-2\n")
    del new["tenants"]["acme"]["credentials"][RAW_URL]
    changes = runtime.runtime.take_up(load_tree(new, folder).config)
    assert changes["applied"]
    planted.refuse(repr(changes))
    (folder / "key").unlink()
    with pytest.raises(ConfigError) as error:
        runtime.runtime.take_up(load_tree(new, folder).config)
    planted.refuse(str(error.value))
    (folder / "key").write_text("planted-key-3\n")


@pytest.mark.slow
def test_check_config_shows_references_and_no_secrets(tmp_path):
    load_tree(configured(tmp_path), tmp_path)
    file = str(tmp_path / "vastar.toml")
    for more in (
        [],
        ["--explain"],
        ["--tenant", "acme", "--origin", URL],
        ["--tenant", "acme", "--origin", TOKENED],
    ):
        done = vastar("check-config", "--config", file, *more, PLANTED_KEY="planted-variable")
        assert done.returncode == 0, done.stderr
        planted.refuse(done.stdout + done.stderr)
        assert ("${file:" in done.stdout) is True
    done = vastar("check-config", "--config", file)
    assert done.returncode == ExitCode.USAGE
    assert "the variable PLANTED_KEY is not set" in done.stderr
    (tmp_path / "key").write_text("planted-one\nplanted-two")
    done = vastar("check-config", "--config", file, PLANTED_KEY="planted-variable")
    assert done.returncode == ExitCode.USAGE
    planted.refuse(done.stdout + done.stderr)


def test_what_is_rendered_in_process_shows_none_either(tmp_path):
    load_tree(configured(tmp_path), tmp_path)
    loaded = load_config(file=str(tmp_path / "vastar.toml"), environ={})
    planted.refuse(render(loaded, explain=True))
    planted.refuse(render_for(loaded, tenant="acme", origin=URL, explain=True))


@pytest.mark.slow
@pytest.mark.parametrize(("style", "workers"), [("json", "1"), ("console", "1"), ("json", "2")])
def test_a_process_tells_none_over_its_whole_life(style, workers, tmp_path):
    """Start, call, reloads good and bad, status, metrics, end: all of its output."""
    load_tree(configured(tmp_path), tmp_path)
    file = tmp_path / "vastar.toml"
    socket = str(tmp_path / "runtime.sock")
    arguments = (
        "--config",
        str(file),
        "--socket",
        socket,
        "--log-format",
        style,
        "--workers",
        workers,
    )
    variables = {"PLANTED_KEY": "planted-variable"}
    with serving(*arguments, "--log-level", "debug", variables=variables) as process:
        call = ("call", "--socket", socket, "-H", "X-Api-Key: planted-mine", "-d", "planted-body")
        done = vastar(*call, "--tenant", "acme", f"{URL}/?token=planted-query")
        assert done.returncode != 0
        planted.refuse(done.stdout)
        for operation in (["status", "--verbose"], ["status", "--metrics"]):
            planted.refuse(vastar(*operation, "--socket", socket).stdout)
        good = file.read_text()
        file.write_text(good.replace("Bearer ${file:key}", "Bearer planted-literal"))
        refused = vastar("reload", "--socket", socket)
        assert "a secret does not belong into a configuration" in refused.stderr
        process.send_signal(signal.SIGHUP)
        file.write_text(good)
        wait_until(lambda: vastar("reload", "--socket", socket).returncode == 0, "it reloads")
        status, logged = end(process, signal.SIGTERM)
    assert status == 0
    assert logged
    planted.refuse(logged)


def test_what_hides_from_repr_hides_from_pretty_printers():
    """A Struct has a `__rich_repr__` that shows all of it, whatever its `__repr__` leaves out."""

    def below(kind: type) -> Iterator[type]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    ours = [each for each in below(msgspec.Struct) if each.__module__.startswith("vastar_")]
    assert len(ours) > 50
    half = {k for k in ours if "__repr__" in vars(k) and "__rich_repr__" not in vars(k)}
    assert half == set()


def test_the_watch_finds_what_is_told(tmp_path):
    """It can fail: a secret in a log line and in a value of ours are both found."""
    with (tmp_path / "log").open("w+b") as file:
        logs.configure("debug", "json", file.fileno())
        logs.get_logger("test").info("oh", what="planted-x")
        logs.configure("info", "console", 2)
    assert len(planted.told()) == 1
    showing = msgspec.structs.replace(RuntimeConfig().log, level="planted-level")  # type: ignore[arg-type]
    held = [RuntimeConfig(log=showing)]
    _, found = planted.values_that_show()
    assert found
    del held, showing
