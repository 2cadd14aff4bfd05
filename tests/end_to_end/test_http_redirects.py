"""Redirects through the whole runtime: what is followed, how far, and what is not carried along."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL, json_of, raw
from tests.support.running import Running, running
from tests.support.sessions import WALL_START_MS
from tests.support.upstream import Upstream
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime.transport.fake import Wait

OTHER_PORT = 4601
OTHER = f"http://127.0.0.1:{OTHER_PORT}"


def redirect(to: str, status: int = 302) -> str:
    return f"{ORIGIN}/redir?st={status}&to={quote(to, safe='')}"


def echoed(fields: dict[str, Any]) -> dict[str, Any]:
    assert fields["status_code"] == 200
    found = json.loads(fields["body"])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_method_and_body_behind_a_redirect(status, method, autojump_clock):
    body = None if method == "GET" else "data"
    async with running() as runtime:
        payload = {
            "url": redirect("/echo?x=1", status),
            "method": method,
            "body": body,
            "headers": {"Content-Type": "text/plain", "X-Kept": "1"},
        }
        got = echoed(json_of(await runtime.http(payload)))
        keeps = status in {307, 308}
        assert got["method"] == (method if keeps else "GET")
        assert got["body"] == ((body or "") if keeps else "")
        names = dict(got["headers"])
        assert names["x-kept"] == "1"
        assert ("content-type" in names) is keeps
        assert names.get("content-length") == ("4" if keeps and body else None)
        assert [event["target"] for event in runtime.upstream.seen("req")][1] == "/echo?x=1"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_head_stays_head(status, autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": redirect("/small", status), "method": "HEAD"}))
        assert fields["status_code"] == 200
        assert [event["method"] for event in runtime.upstream.seen("req")] == ["HEAD", "HEAD"]


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/echo", "/echo"),
        ("echo?a b", "/echo?a%20b"),
        ("?st=200&to=x", None),
        (f"{ORIGIN}/echo#f", "/echo"),
        ("//127.0.0.1:4600/echo", "/echo"),
        ("/x/../echo", "/echo"),
    ],
)
async def test_locations_of_every_form(location, target, autojump_clock):
    async with running() as runtime:
        json_of(await runtime.http({"url": redirect(location)}))
        targets = [event["target"] for event in runtime.upstream.seen("req")]
        assert targets[1] == (target or "/redir?st=200&to=x")


@pytest.mark.parametrize(
    "location",
    [
        *(b"", b"  ", b"http://", b"http://[", b"ftp://h/x", b"javascript:1", b"http://h:0/"),
        b"/a\r\nLocation: /b",
    ],
)
async def test_a_location_that_cannot_be_followed_makes_the_redirect_the_answer(
    location, autojump_clock
):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(
            b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 4\r\n\r\nbody" % location
        )
        fields = json_of(await runtime.http({"url": RAW_URL}))
        assert (fields["status_code"], fields["body"]) == (302, "body")


async def test_the_same_location_given_twice_is_one(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(
            b"HTTP/1.1 302 Found\r\nLocation: %b\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
            % ((f"{ORIGIN}/small".encode(),) * 2)
        )
        assert json_of(await runtime.http({"url": RAW_URL}))["status_code"] == 200


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
async def test_other_statuses_are_not_followed(status, autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": redirect("/echo", status)}))
        assert fields["status_code"] == status


async def test_a_redirect_without_location_is_the_answer(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/status/302"}))
        assert (fields["status_code"], fields["body"]) == (302, "status body 302")


async def test_a_caller_may_follow_by_itself(autojump_clock):
    async with running() as runtime:
        payload = {"url": redirect("/echo"), "follow_redirects": False}
        fields = json_of(await runtime.http(payload))
        assert (fields["status_code"], fields["headers"]["location"]) == (302, "/echo")
        assert len(runtime.upstream.seen("req")) == 1


async def test_ten_redirects_are_followed_and_no_eleventh(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/loop?max=9"}))
        assert fields["status_code"] == 200
        assert len(runtime.upstream.seen("req")) == 11

    async with running() as runtime:
        answer = await runtime.http({"url": f"{ORIGIN}/loop?max=10"})
        assert answer.error_class is ErrorClass.PERMANENT
        assert answer.error_message == (
            f"HTTP request failed: more than 10 redirects, the last one from {ORIGIN}"
        )
        assert answer.disposition >= Disposition.RESPONSE_STARTED
        assert len(runtime.upstream.seen("req")) == 11


async def test_a_loop_ends(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(
            b"HTTP/1.1 307 X\r\nLocation: #again\r\nContent-Length: 0\r\n\r\n"
        )
        answer = await runtime.http({"url": RAW_URL})
        assert answer.error_class is ErrorClass.PERMANENT
        assert "more than 10 redirects" in str(answer.error_message)


# --- other origins ------------------------------------------------------------------------------


async def seen_there(runtime: Running, there: Upstream, payload: dict[str, Any]) -> dict[str, str]:
    json_of(await runtime.http(payload))
    (event,) = there.seen("req")
    return dict(event["headers"])


CREDENTIALS = {"Authorization": "Bearer hunter2", "Cookie": "a=hunter2", "X-Kept": "1"}


async def test_credentials_stay_with_their_origin(autojump_clock):
    async with running() as runtime:
        there = Upstream()
        runtime.network.handlers[OTHER_PORT] = there.handle
        headers = await seen_there(
            runtime,
            there,
            {"url": redirect(f"{OTHER}/small"), "headers": {**CREDENTIALS, "Host": "h.test"}},
        )
        assert "hunter2" not in str(headers)
        assert (headers["host"], headers["x-kept"]) == ("127.0.0.1:4601", "1")
        here = dict(runtime.upstream.seen("req")[0]["headers"])
        assert (here["host"], here["authorization"]) == ("h.test", "Bearer hunter2")


async def test_so_does_the_userinfo_of_the_url(autojump_clock):
    async with running() as runtime:
        there = Upstream()
        runtime.network.handlers[OTHER_PORT] = there.handle
        url = redirect(f"{OTHER}/small").replace("//", "//u:hunter2@", 1)
        headers = await seen_there(runtime, there, {"url": url})
        assert "authorization" not in headers


async def test_within_the_origin_they_go_along(autojump_clock):
    async with running() as runtime:
        payload = {"url": redirect("/echo"), "headers": {**CREDENTIALS, "Host": "h.test"}}
        headers = dict(echoed(json_of(await runtime.http(payload)))["headers"])
        assert headers["authorization"] == "Bearer hunter2"
        assert headers["cookie"] == "a=hunter2"
        assert headers["host"] == "h.test"


async def test_a_body_is_sent_again_to_the_other_origin(autojump_clock):
    async with running() as runtime:
        there = Upstream()
        runtime.network.handlers[OTHER_PORT] = there.handle
        payload = {"url": redirect(f"{OTHER}/echo", 307), "method": "POST", "body": "x" * 100_000}
        got = echoed(json_of(await runtime.http(payload)))
        assert (got["method"], got["len"]) == ("POST", 100_000)


# --- faults behind the first hop ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "cause"),
    [
        (
            "http://127.0.0.1:1/x",
            "HTTP request failed: connect failed for 127.0.0.1:1: connection refused",
        ),
        (
            f"{OTHER}/closenow",
            (
                "HTTP request failed: waiting for the response failed for 127.0.0.1:4601: "
                "closed before the response"
            ),
        ),
    ],
)
async def test_a_second_hop_that_fails_does_not_hide_that_the_first_was_answered(
    to, cause, autojump_clock
):
    async with running() as runtime:
        runtime.network.handlers[OTHER_PORT] = Upstream().handle
        answer = await runtime.http({"url": redirect(to, 307), "method": "POST", "body": "x"})
        assert answer.error_class is ErrorClass.TRANSIENT
        assert answer.error_message == cause
        assert answer.disposition is Disposition.RESPONSE_STARTED


async def test_the_deadline_is_one_for_all_hops(autojump_clock):
    async with running() as runtime:
        there = Upstream()
        runtime.network.handlers[OTHER_PORT] = there.handle
        slow = f"HTTP/1.1 302 X\r\nLocation: {OTHER}/hang\r\nContent-Length: 0\r\n\r\n".encode()
        runtime.network.handlers[RAW_PORT] = raw(slow)
        answer = await runtime.http({"url": RAW_URL}, deadline_at_ms=WALL_START_MS + 700)
        assert answer.error_class is ErrorClass.TIMEOUT
        assert answer.duration_us == 700_000
        assert answer.error_message == (
            f"timed out: the deadline of 700 ms passed while waiting for the response ({OTHER})"
        )
        assert answer.disposition is Disposition.RESPONSE_STARTED
        await there.wait_for("client_closed_while_busy")


async def test_a_long_body_of_a_redirect_is_not_waited_for(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(
            f"HTTP/1.1 302 X\r\nLocation: {ORIGIN}/small\r\nContent-Length: 999999\r\n\r\n".encode()
            + b"x" * 30_000
        )
        answer = await runtime.http({"url": RAW_URL})
        assert json_of(answer)["status_code"] == 200
        assert answer.duration_us < 1_000_000


async def test_nor_is_one_that_does_not_end(autojump_clock):
    async with running() as runtime:
        head = f"HTTP/1.1 302 X\r\nLocation: {ORIGIN}/small\r\nTransfer-Encoding: chunked\r\n\r\n"
        runtime.network.handlers[RAW_PORT] = raw(head.encode() + b"1\r\nx\r\n", Wait())
        answer = await runtime.http({"url": RAW_URL})
        assert json_of(answer)["status_code"] == 200
        assert answer.duration_us < 1_000_000
