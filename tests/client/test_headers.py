"""Header fields: found in any case, joined where they repeat, kept exactly."""

import copy
import pickle

from vastar_client._headers import Headers
from vastar_client.response import HTTPResponse


def answer(status=200, body=b"", **headers):
    return HTTPResponse(1, status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


def test_headers_are_found_in_any_case():
    response = answer(Content_Type="a/b")
    assert response.headers == {"content-type": "a/b"}
    assert list(response.headers) == ["content-type"]
    assert response.headers["CONTENT-type"] == "a/b"
    assert "Content-Type" in response.headers
    assert response.headers.get("CONTENT-TYPE") == "a/b"
    assert response.headers.get("X") is None
    assert response.headers.get("X", "d") == "d"
    assert isinstance(response.headers, dict)


def test_headers_can_be_changed_and_copied():
    headers = Headers({"A": "1"})
    headers["B"] = "2"
    del headers["a"]
    for twin in (copy.copy(headers), pickle.loads(pickle.dumps(headers))):
        assert twin == {"b": "2"}
        assert twin["B"] == "2"
    assert 1 not in headers


def test_repeated_headers_are_joined_and_kept():
    pairs = [("Set-Cookie", "a=1"), ("Via", "x"), ("set-cookie", "b=2"), ("via", "y")]
    assert Headers(pairs) == {"set-cookie": "a=1\nb=2", "via": "x, y"}
