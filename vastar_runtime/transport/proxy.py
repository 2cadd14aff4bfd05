"""Which proxy stands before which origin: from the settings, then from the environment.

The environment is read once, when the table is made. Rules: HTTP_PROXY in capitals is ignored when
REQUEST_METHOD is set, as a CGI server would let its callers set it (httpoxy); lower case wins over
capitals (curl); names found in the environment never apply to loopback (Go's net/http), while a
proxy from our own settings does. NO_PROXY entries are host names with all below them, addresses,
networks in CIDR form, each maybe with a port, or `*` (Go, curl).
"""

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from vastar_runtime.transport.messages import Headers, Origin
from vastar_runtime.transport.settings import ProxySettings

__all__ = ["Proxy", "ProxyTable"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@attrs.frozen
class Proxy:
    """One proxy server.

    Attributes:
        scheme: `http`, `https` (TLS to the proxy itself), `socks5` (names are looked up here) or
            `socks5h` (names are looked up there).
        host, port: where it listens.
        username, password: decoded, never shown.
    """

    scheme: str
    host: str
    port: int
    username: bytes | None = attrs.field(default=None, repr=False)
    password: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def parse(cls, url: str, source: str) -> "Proxy":
        """A proxy from its URL; without a scheme it is `http`.

        Raises:
            ValueError: it is none; the text names `source` and what would be right, not the URL.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in _DEFAULT_PORTS or not host or parts.path not in {"", "/"}:
            raise ValueError(
                f"{source} is no proxy URL: it must be [http|https|socks5|socks5h]://host[:port]"
            )
        return cls(
            parts.scheme,
            host,
            port or _DEFAULT_PORTS[parts.scheme],
            None if parts.username is None else unquote_to_bytes(parts.username),
            unquote_to_bytes(parts.password or ""),
        )

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS5 and not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def address(self) -> str:
        """`host:port`, for errors."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> Headers:
        """What an HTTP proxy is to be told with each request."""
        if self.username is None:
            return []
        credentials = base64.b64encode(self.username + b":" + self.password)
        return [(b"proxy-authorization", b"Basic " + credentials)]


class ProxyTable:
    """The proxies of one configuration.

    Args:
        settings: what the configuration says.
        environ: the environment, read only where the settings allow it.

    Raises:
        ValueError: a value is no proxy URL.
    """

    def __init__(self, settings: ProxySettings, environ: Mapping[str, str]) -> None:
        variables = environ if settings.environment else {}
        everything = self._pick(settings.all, "all", variables)
        self._proxies = {
            "http": self._pick(settings.http, "http", variables) or everything,
            "https": self._pick(settings.https, "https", variables) or everything,
        }
        if settings.http == "":
            self._proxies["http"] = None
        if settings.https == "":
            self._proxies["https"] = None
        entries: Iterable[str] = settings.no_proxy or ()
        if settings.no_proxy is None:
            entries = _variable("no_proxy", variables).split(",")
        self._direct = [entry.strip().lower() for entry in entries if entry.strip()]

    @staticmethod
    def _pick(
        value: str | None, name: str, environ: Mapping[str, str]
    ) -> "tuple[Proxy, bool] | None":
        """The proxy, and whether it comes from the environment."""
        if value is not None:
            return (Proxy.parse(value, f"proxy.{name}"), False) if value else None
        variable = f"{name}_proxy"
        found = _variable(variable, environ).strip()
        return (Proxy.parse(found, variable.upper()), True) if found else None

    def find(self, origin: Origin) -> Proxy | None:
        """The proxy for an origin, or `None` to go directly."""
        found = self._proxies.get(origin.scheme)
        if found is None:
            return None
        proxy, from_environment = found
        if from_environment and _is_loopback(origin.host):
            return None
        if any(_covers(entry, origin) for entry in self._direct):
            return None
        return proxy


def _variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
        value = environ.get(name.upper())
    return value or ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(text: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _covers(entry: str, origin: Origin) -> bool:
    """Whether a NO_PROXY entry (lower case, stripped) is for this origin."""
    if entry == "*":
        return True
    host = origin.host.rstrip(".")
    if "/" in entry:
        address = _address(host)
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if _address(entry.strip("[]")) is None:
        name, colon, port = entry.rpartition(":")
        if colon and port.isdecimal():
            if int(port) != origin.port:
                return False
            entry = name
    entry = entry.strip("[]")
    if _address(entry) is not None or _address(host) is not None:
        return _address(entry) == _address(host)
    entry = entry.removeprefix("*").strip(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))
