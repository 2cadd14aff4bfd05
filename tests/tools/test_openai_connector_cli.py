"""The example as a program: settings, scenes, and the sentences for what goes wrong."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tools.openai_connector import config as settings
from tools.openai_connector.cli import explain, main
from tools.openai_connector.config import Config, ConfigError
from vastar_client import (
    CallTimeout,
    ConnectorException,
    ErrorClass,
    HTTPRequest,
    HTTPStatusError,
    RuntimeUnavailable,
)
from vastar_client.testing import FakeRuntime, respond

EXAMPLE = Path(settings.__file__).with_name("config.example.toml")
KEY = "sk-very-secret-1234567890"


def api(request: HTTPRequest) -> Any:
    """An API that streams back how many messages it got, two events an answer."""
    if request.url.endswith("/test_completion"):
        return respond(json={"choices": [{"message": {"content": "It works."}}]})
    if request.url.endswith("/v1/models"):
        return respond(json={"data": [{"id": "m1"}, {"id": "m2"}]})
    count = len(json.loads(bytes(request.body_bytes() or b""))["messages"])
    deltas = [{"content": "I got "}, {"content": f"{count} messages."}]
    events = [f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n" for delta in deltas]
    return respond(
        body="".join([*events, "data: [DONE]\n\n"]), headers={"content-type": "text/event-stream"}
    )


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime and no key of the developer's own."""
    for name in ("OPENAI_API_KEY", "VASTAR_SOCKET_PATH", "VASTAR_USE_TCP", "VASTAR_TCP_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    with FakeRuntime(api) as fake:
        yield fake


def run(fake: FakeRuntime, *flags: str) -> int:
    return main(["--socket", fake.config.socket_path, *flags])


def test_all_scenes_play_in_order(runtime: FakeRuntime, capsys: pytest.CaptureFixture) -> None:
    assert run(runtime) == 0
    out, err = capsys.readouterr()
    marks = ["--- connection", "It works.", "--- streaming", "--- conversation"]
    assert [line for line in marks if line in out] == marks
    places = [out.index(mark) for mark in marks]
    assert places == sorted(places)
    assert err == ""


def test_the_streaming_scene_prints_the_deltas(
    runtime: FakeRuntime, capsys: pytest.CaptureFixture
) -> None:
    assert run(runtime, "--scene", "streaming") == 0
    *_, said, timing = capsys.readouterr().out.splitlines()
    assert said == "Assistant: I got 2 messages."
    assert re.fullmatch(r"\(first token after \d+ ms, the last of 2 after \d+ ms\)", timing)


def test_the_conversation_sends_its_history(
    runtime: FakeRuntime, capsys: pytest.CaptureFixture
) -> None:
    """Each turn carries the system prompt, all turns before it and their answers."""
    assert run(runtime, "--scene", "conversation") == 0
    sent = [json.loads(bytes(r.body_bytes() or b""))["messages"] for r in runtime.requests]
    assert [len(messages) for messages in sent] == [2, 4, 6]
    assert [message["role"] for message in sent[-1]] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    assert sent[-1][2]["content"] == "I got 2 messages."
    assert "I got 6 messages." in capsys.readouterr().out


def test_base_url_of_the_command_line(runtime: FakeRuntime) -> None:
    assert run(runtime, "--scene", "connection", "--base-url", "http://127.0.0.1:9/v1/") == 0
    assert runtime.requests[0].url == "http://127.0.0.1:9/test_completion"


def test_the_real_api_gets_the_key_which_is_never_printed(
    runtime: FakeRuntime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    file = tmp_path / "c.toml"
    file.write_text("use_real_openai = true\n")
    assert run(runtime, "--config", str(file)) == 0
    assert {r.get_header("authorization") for r in runtime.requests} == {f"Bearer {KEY}"}
    assert runtime.requests[0].url == "https://api.openai.com/v1/models"
    out, err = capsys.readouterr()
    assert "2 models, among them m1, m2" in out
    assert KEY not in out + err


def test_the_simulator_never_gets_the_key(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert run(runtime) == 0
    assert {r.get_header("authorization") for r in runtime.requests} == {None}


def test_an_api_that_quotes_the_key_does_not_get_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    file = tmp_path / "c.toml"
    file.write_text("use_real_openai = true\n")
    words = {"error": {"message": f"what is Bearer {KEY}?"}}
    with FakeRuntime([respond(400, json=words)]) as fake:
        assert run(fake, "--config", str(file)) == 1
    err = capsys.readouterr().err
    assert "what is Bearer ***?" in err
    assert KEY not in err


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (respond(401, json={"error": {"message": "sk-abc"}}), "(401): check OPENAI_API_KEY"),
        (respond(404, json={"error": {"message": "no model m"}}), "model; it says: no model m"),
        (respond(400, body="<html>"), "did not take the request (400)"),
        (respond(503, json={"error": {"message": "a\n\x1b[31mb"}}), "it says: a ?[31mb"),
        (ConnectorException("refused", ErrorClass.TRANSIENT), "python -m tools.llm_simulator"),
        (ConnectorException("not allowed", ErrorClass.PERMANENT), "not allowed (PERMANENT"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_exit_code_1(
    reply: Any, says: str, capsys: pytest.CaptureFixture
) -> None:
    """To stderr, with something to act on, without a traceback."""
    with FakeRuntime([reply]) as fake:
        assert run(fake, "--scene", "connection") == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "sk-abc" not in err


def test_a_rate_limit_says_when_to_come_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "c.toml"
    file.write_text("max_retries = 0\n")
    with FakeRuntime([respond(429, json={}, headers={"retry-after": "7"})]) as fake:
        assert run(fake, "--config", str(file)) == 1
    assert "(429): try again in 7 s" in capsys.readouterr().err


def test_without_a_runtime_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "no.sock"
    assert main(["--socket", str(path)]) == 1
    err = capsys.readouterr().err
    assert f"python -m vastar_runtime start --socket {path}" in err


def test_a_socket_flag_beats_the_environment(
    runtime: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VASTAR_SOCKET_PATH", str(tmp_path / "other.sock"))
    assert run(runtime, "--scene", "connection") == 0


def test_the_environment_beats_a_socket_in_the_file(
    runtime: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with everything built on the published SDK."""
    file = tmp_path / "c.toml"
    file.write_text(f'socket_path = "{tmp_path / "other.sock"}"\n')
    monkeypatch.setenv("VASTAR_SOCKET_PATH", runtime.config.socket_path)
    assert main(["--config", str(file), "--scene", "connection"]) == 0


def test_a_bad_variable_of_the_runtime_s_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("VASTAR_USE_TCP", "true")
    monkeypatch.setenv("VASTAR_TCP_PORT", "many")
    assert main(["--scene", "connection"]) == 1
    assert "VASTAR_TCP_PORT is 'many'" in capsys.readouterr().err


def test_explanations_of_what_a_fake_cannot_do() -> None:
    config = Config(timeout_s=2)
    assert explain(RuntimeUnavailable("no runtime at X. Start one"), config) == (
        "no runtime at X. Start one"
    )
    assert "timeout_s is 2 now" in explain(CallTimeout("no answer in 2 s"), config)
    bare = HTTPStatusError("the upstream answered with status 500", ErrorClass.TRANSIENT)
    assert "500" in explain(bare, config)


def test_ctrl_c_ends_it_quietly(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(main.__globals__["SCENES"], "connection", interrupt)
    assert run(runtime) == 130
    assert capsys.readouterr().err == ""


def test_the_example_file_holds_the_defaults() -> None:
    """Also the lines that are commented out name keys that exist."""
    assert settings.load(EXAMPLE) == Config()
    text = EXAMPLE.read_text()
    named = tomllib.loads(
        text.replace("\n# base_url", "\nbase_url").replace("# socket_p", "socket_p")
    )
    assert set(named) == set(Config.__struct_fields__)
    assert msgspec.convert(named, Config).url == Config().url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("use_real_openai = 1", "Expected `bool`"),
        ('model = ""', "model"),
        ("timeout_s = 0", "timeout_s"),
        ("timeout_s = nan", "timeout_s"),
        ("temperature = 2.5", "temperature"),
        ("max_retries = -1", "max_retries"),
        ("timeout = 3", "unknown field `timeout`; known keys are use_real_openai"),
        ("model = ", "not a TOML file"),
        ('base_url = "api.openai.com"', "base_url is no http or https URL"),
        ('base_url = "ftp://api.openai.com"', "it must be like http://127.0.0.1:4545"),
        ('base_url = "http://[::1"', "base_url is no http or https URL"),
        ('base_url = "http://x:port"', "base_url is no http or https URL"),
        ('base_url = "http://me:pw@x"', "has a user, a query or a fragment"),
        ('base_url = "http://x/?key=pw"', "has a user, a query or a fragment"),
        ('base_url = "http://api.example"\nuse_real_openai = true', "send the key unencrypted"),
    ],
)
def test_bad_settings_are_refused_with_place_and_remedy(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    assert main(["--config", str(file)]) == 1
    err = capsys.readouterr().err
    assert str(file) in err
    assert says in err
    assert "pw" not in err.replace(str(file), "")


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--config", str(tmp_path / "none.toml")]) == 1
    assert "none.toml: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("variable", [None, "", "  ", "sk-ünsafe", "sk-a\nb", "sk a"])
def test_the_real_api_needs_a_usable_key(variable: str | None) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        settings.api_key(Config(use_real_openai=True), variable)
    assert "sk" not in str(caught.value)
    assert settings.api_key(Config(use_real_openai=True), f" {KEY}\n") == KEY


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://127.0.0.1.example", False),
        ("https://api.openai.com", False),
    ],
)
def test_is_loopback(url: str, expected: bool) -> None:
    assert settings.is_loopback(url) is expected
