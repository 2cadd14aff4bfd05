"""The static helpers of the published SDK."""

import pytest

from vastar_client.helpers import HTTPResponseHelper
from vastar_client.response import HTTPResponse


def answer(status=200, body=b"", **headers):
    return HTTPResponse(1, status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


@pytest.mark.parametrize("status", [199, 200, 299, 300, 399, 400, 499, 500, 599, 600])
def test_helper_ranges(status):
    helper, response = HTTPResponseHelper, answer(status)
    got = [helper.is_2xx, helper.is_3xx, helper.is_4xx, helper.is_5xx]
    assert [is_it(response) for is_it in got] == [status // 100 == n for n in (2, 3, 4, 5)]


def test_helper_bodies_and_headers():
    response = answer(200, '{"é":1}'.encode(), X_Y="z")
    assert HTTPResponseHelper.get_body_as_string(response) == '{"é":1}'
    assert HTTPResponseHelper.get_body_as_string(response, "latin-1") == '{"Ã©":1}'
    assert HTTPResponseHelper.get_body_as_json(response) == {"é": 1}
    assert HTTPResponseHelper.get_header(response, "x-y") == "z"
    assert HTTPResponseHelper.get_header(response, "none") is None
