"""Static helpers under the names of the published SDK; new code uses `HTTPResponse` itself."""

from typing import Any

from vastar_client._headers import Headers
from vastar_client.response import HTTPResponse

__all__ = ["HTTPResponseHelper"]


class HTTPResponseHelper:
    """Questions about an answer, as static methods."""

    @staticmethod
    def is_2xx(response: HTTPResponse) -> bool:
        """Whether the status is 200 to 299."""
        return response.status_code in range(200, 300)

    @staticmethod
    def is_3xx(response: HTTPResponse) -> bool:
        """Whether the status is 300 to 399."""
        return response.status_code in range(300, 400)

    @staticmethod
    def is_4xx(response: HTTPResponse) -> bool:
        """Whether the status is 400 to 499."""
        return response.status_code in range(400, 500)

    @staticmethod
    def is_5xx(response: HTTPResponse) -> bool:
        """Whether the status is 500 to 599."""
        return response.status_code in range(500, 600)

    @staticmethod
    def get_body_as_string(response: HTTPResponse, encoding: str = "utf-8") -> str:
        """The body as text.

        Raises:
            UnicodeDecodeError: the body is not in that encoding; `response.text` never fails.
        """
        return response.body.decode(encoding)

    @staticmethod
    def get_body_as_json(response: HTTPResponse) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return response.json()

    @staticmethod
    def get_header(response: HTTPResponse, name: str) -> str | None:
        """The value of header `name` in any case, or None."""
        return Headers(response.headers).get(name)
