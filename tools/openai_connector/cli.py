"""The example as a program: flags, settings, scenes, and one sentence for whatever goes wrong."""

import argparse
import os
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tools.openai_connector import config as settings
from tools.openai_connector.config import Config, ConfigError
from tools.openai_connector.connector import OpenAIConnector
from tools.openai_connector.scenes import SCENES
from vastar_client import (
    CallTimeout,
    ConnectorException,
    HTTPStatusError,
    RuntimeClient,
    RuntimeConfig,
    RuntimeUnavailable,
)

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
_SHOWN_CHARACTERS: Final = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenes that were asked for; 0 when all went well, 1 with a sentence when not."""
    flags = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no letter for a character
    try:
        config = settings.load(flags.config, base_url=flags.base_url, socket_path=flags.socket)
        key = settings.api_key(config, os.environ.get(settings.KEY_VARIABLE))
    except ConfigError as error:
        return _fail(str(error))
    try:
        with RuntimeClient(_runtime_config(config, explicit=flags.socket is not None)) as client:
            _play(client, config, key, flags.scene)
    except ConnectorException as error:
        sentence = explain(error, config)
        # What an API says may quote what it was sent.
        return _fail(sentence.replace(key, "***") if key else sentence)
    except ValueError as error:  # a VASTAR_ variable that cannot be used: the client names it
        return _fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def explain(error: ConnectorException, config: Config) -> str:
    """What went wrong and what to do about it, in a sentence or two, without secrets."""
    if isinstance(error, HTTPStatusError) and error.response is not None:
        return _explain_status(error, error.response.status_code, config)
    if isinstance(error, RuntimeUnavailable):
        return error.message  # it says what to run
    if isinstance(error, CallTimeout):
        return f"{error.message}: the API may be slow; timeout_s is {config.timeout_s:g} now"
    if settings.is_loopback(config.url) and error.is_retryable():
        return (
            f"{error.message}. Is the simulator running at {config.url}? "
            "Start it with `python -m tools.llm_simulator`"
        )
    return str(error)


def _explain_status(error: HTTPStatusError, status: int, config: Config) -> str:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            # The API's own words are left out: they quote a part of the key.
            where = f"check {settings.KEY_VARIABLE}"
            return f"{config.url} refused the key ({status}): {where} and what the key may do"
        case HTTPStatus.TOO_MANY_REQUESTS:
            wait = f"in {error.retry_after_ms / 1000:g} s" if error.retry_after_ms else "later"
            return (
                f"{config.url} turned the call away (429): try again {wait}, "
                "or look at the limits of your plan"
            )
        case HTTPStatus.NOT_FOUND:
            return f"{config.url} does not know this (404): check base_url and model{_said(error)}"
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return f"{config.url} is in trouble ({status}): try again later{_said(error)}"
        case _:
            return f"{config.url} did not take the request ({status}){_said(error)}"


def _said(error: HTTPStatusError) -> str:
    """`error.message` of OpenAI's error body, where there is one."""
    try:
        message = error.response.json()["error"]["message"] if error.response else None
    except (ValueError, LookupError, TypeError):
        message = None
    if not isinstance(message, str):
        return ""
    line = " ".join(message.split())[:_SHOWN_CHARACTERS]
    return f"; it says: {''.join(c if c.isprintable() else '?' for c in line)}"


def _play(client: RuntimeClient, config: Config, key: str | None, scene: str) -> None:
    connector = OpenAIConnector(
        client,
        config.url,
        config.model,
        api_key=key,
        temperature=config.temperature,
        timeout_s=config.timeout_s,
        max_retries=config.max_retries,
    )
    for name in SCENES if scene == "all" else (scene,):
        print(f"--- {name}")
        SCENES[name](connector, config)


def _runtime_config(config: Config, *, explicit: bool) -> RuntimeConfig:
    """A socket on the command line beats VASTAR_SOCKET_PATH, one in the file does not."""
    if config.socket_path is None:
        return RuntimeConfig()
    return RuntimeConfig(socket_path=config.socket_path, use_environment=not explicit)


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.openai_connector",
        description="OpenAI's chat completions through the Vastar runtime: an example.",
        epilog=f"The key comes from {settings.KEY_VARIABLE} alone, and only where "
        "use_real_openai = true. Exit codes: 0 well, 1 failed, 2 bad flags.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="see config.example.toml")
    parser.add_argument(
        "--scene", choices=(*SCENES, "all"), default="all", help="what to show (all)"
    )
    parser.add_argument("--socket", metavar="PATH", help="the runtime's socket")
    parser.add_argument("--base-url", metavar="URL", help="the API, without /v1")
    return parser
