"""The example's settings: a TOML file, the command line on top, the key from the environment alone.

A frozen value, checked before anything is called; the key is not a part of it, so that printing
or logging the settings can never show it.
"""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

SIMULATOR_URL: Final = "http://127.0.0.1:4545"
OPENAI_URL: Final = "https://api.openai.com"
KEY_VARIABLE: Final = "OPENAI_API_KEY"


class ConfigError(Exception):
    """Settings that cannot be used; the message says what and where, and what would be right."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `config.example.toml` explains line by line."""

    use_real_openai: bool = False
    base_url: str | None = None
    model: Annotated[str, Meta(min_length=1)] = "gpt-4o-mini"
    socket_path: Annotated[str, Meta(min_length=1)] | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 2
    system_prompt: str = "You are a helpful assistant. Answer in a few sentences."

    @property
    def url(self) -> str:
        """`base_url` or its default, without `/v1` and without a slash at the end."""
        default = OPENAI_URL if self.use_real_openai else SIMULATOR_URL
        return (self.base_url or default).rstrip("/").removesuffix("/v1")


def load(
    path: Path | None, *, base_url: str | None = None, socket_path: str | None = None
) -> Config:
    """The settings of a file (or the defaults), with what the command line gave put over them.

    Raises:
        ConfigError: the file cannot be read or is no TOML, a key is unknown or a value is wrong.
    """
    given = {"base_url": base_url, "socket_path": socket_path}
    table = _table(path) | {name: value for name, value in given.items() if value is not None}
    place = "the command line" if path is None else str(path)
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        known = ", ".join(Config.__struct_fields__)
        hint = f"; known keys are {known}" if "unknown field" in str(error) else ""
        raise ConfigError(f"{place}: {str(error).replace('$.', '')}{hint}") from None
    _check_url(config, place)
    return config


def api_key(config: Config, variable: str | None) -> str | None:
    """The key to send: none to the simulator, the environment's to the real API.

    Args:
        config: the settings.
        variable: the value of OPENAI_API_KEY, None where it is not set.

    Raises:
        ConfigError: the real API is wanted and there is no usable key. The key is not shown.
    """
    if not config.use_real_openai:
        return None
    key = (variable or "").strip()
    if not key:
        raise ConfigError(
            f"use_real_openai is true, but {KEY_VARIABLE} is not set: "
            f"export {KEY_VARIABLE}, or set use_real_openai = false for the simulator"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{KEY_VARIABLE} holds characters that no key has: copy it again")
    return key


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by its name or address alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _table(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None


def _check_url(config: Config, place: str) -> None:
    wanted = f"it must be like {SIMULATOR_URL} or {OPENAI_URL}"
    try:
        parts = urlsplit(config.url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{place}: base_url is no http or https URL: {wanted}")
    if parts.username is not None or parts.query or parts.fragment:
        # Not quoted: what is too much here is most often a secret.
        raise ConfigError(f"{place}: base_url has a user, a query or a fragment: {wanted}")
    if config.use_real_openai and parts.scheme == "http" and not is_loopback(config.url):
        raise ConfigError(f"{place}: base_url is http, which would send the key unencrypted")
