"""Connector `http`: HTTP and HTTPS calls.

`payload` (what the caller asked) > `target`, `headers` (a request that is valid) > `connector`
(send, follow redirects, read, within the call's limits) > `decoding` > `answer`.
"""

from vastar_runtime.connectors.http.connector import HttpConnector, HttpSettings

__all__ = ["HttpConnector", "HttpSettings"]
