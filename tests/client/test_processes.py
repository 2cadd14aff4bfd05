"""Things that need a process of their own: imports, interrupts, forks, exits, shells."""

import subprocess
import sys
import textwrap

import pytest

import vastar_client
from vastar_client.testing import HOLD, FakeRuntime, respond, respond_events

PRELUDE = """
import os, signal, sys, threading, time
from vastar_client import RuntimeClient
from vastar_client.errors import ConnectionClosed
from vastar_client.testing import HOLD, FakeRuntime, respond
URL = "http://api.test/x"

def until(condition):
    ends_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.001)
"""


def run(script, *flags, prelude=PRELUDE):
    """The lines that `script` prints; it must end well and write nothing to stderr."""
    code = prelude + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, *flags, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


FORBIDDEN = ["vastar_runtime", "httpcore", "structlog", "numpy", "httptools", "h11"]


def test_the_client_imports_neither_runtime_nor_its_libraries():
    """And not even Trio, before the first call."""
    assert run(
        f"""
        import sys
        import vastar_client
        for name in vastar_client.__all__:
            getattr(vastar_client, name)
        import vastar_client.testing
        print([m for m in {[*FORBIDDEN, "trio", "asyncio"]} if m in sys.modules])
        """,
        prelude="",
    ) == ["[]"]


def test_nor_when_it_is_used():
    assert run(
        f"""
        with FakeRuntime(lambda r: respond(json=r.url)) as fake, RuntimeClient(fake.config) as c:
            print(c.get(URL).json())
        print([m for m in {FORBIDDEN} if m in sys.modules])
        """
    ) == ["http://api.test/x", "[]"]


def test_text_is_never_compared_with_bytes():
    """Under `-bb`, which some run their tests with, that is an error."""
    assert run(
        """
        with FakeRuntime(lambda r: respond(json=r.url)) as fake, RuntimeClient(fake.config) as c:
            print(c.get(URL, headers={"Accept": "a", "x-own": "b"}).json())
        from vastar_client.wire import HttpResponse, encode_http_response
        for own in ("x-own", b"x-own"), ("date", b"date"):
            for name in own:
                encode_http_response(HttpResponse(200, ((name, "a" if name is own[0] else b"a"),)))
        print("fine")
        """,
        "-bb",
    ) == ["http://api.test/x", "fine"]


def test_keyboard_interrupt_cancels_the_call_and_the_client_goes_on():
    assert run(
        """
        with FakeRuntime([HOLD, respond(body="second")]) as fake:
            client = RuntimeClient(fake.config)

            def interrupt():
                until(lambda: fake.held)
                os.kill(os.getpid(), signal.SIGINT)

            threading.Thread(target=interrupt).start()
            try:
                client.get(URL)
            except KeyboardInterrupt:
                print("interrupted")
            until(lambda: fake.cancelled)
            print(fake.cancelled == [fake.messages[0].request_id])
            print(client.get(URL).text)
            client.close()
        """
    ) == ["interrupted", "True", "second"]


@pytest.mark.parametrize(
    ("opened", "events"),
    [('stream("GET", URL)', "opened.events()"), ("events(URL)", "opened")],
)
def test_keyboard_interrupt_in_a_loop_over_events_cancels_the_stream(opened, events):
    assert run(
        f"""
        from vastar_client.testing import respond_events
        with (
            FakeRuntime([respond_events(["one", HOLD])]) as fake,
            RuntimeClient(fake.config) as client,
        ):
            def interrupt():
                until(lambda: "one" in seen)
                fake.streams[0].push("data: two\\n\\n")
                until(lambda: "two" in seen)
                os.kill(os.getpid(), signal.SIGINT)

            seen = []
            threading.Thread(target=interrupt).start()
            try:
                with client.{opened} as opened:
                    for event in {events}:
                        seen.append(event.data)
            except KeyboardInterrupt:
                print(seen, "interrupted")
            until(lambda: client._connected.client._link._slots.value == 256)
            print(len(fake.cancelled))
        """
    ) == ["['one', 'two'] interrupted", "1"]


def test_a_forked_child_leaves_the_streams_of_its_parent_alone():
    assert run(
        """
        import gc
        from vastar_client.testing import respond_events
        with FakeRuntime([respond_events(["one", HOLD])]) as fake:
            client = RuntimeClient(fake.config)
            with client.stream("GET", URL) as response:
                events = response.events()
                print(next(events).data)
                sys.stdout.flush()
                pid = os.fork()
                if pid == 0:
                    signal.alarm(20)
                    try:
                        next(events)
                    except ConnectionClosed:
                        response.close()
                        del response, events
                        gc.collect()
                        os._exit(0)
                    os._exit(1)
                print(os.waitpid(pid, 0)[1])
                fake.streams[0].push("data: two\\n\\n")
                print(next(events).data, fake.cancelled)
            client.close()
        """
    ) == ["one", "0", "two []"]


def test_a_forked_child_has_its_own_connection_and_leaves_the_parents_alone():
    assert run(
        """
        with FakeRuntime(lambda r: HOLD if "hold" in r.url else respond(body=r.url)) as fake:
            client = RuntimeClient(fake.config)
            print(client.get("http://a/before").text)
            answers = []
            thread = threading.Thread(target=lambda: answers.append(client.get("http://a/hold")))
            thread.start()
            until(lambda: fake.held)

            from vastar_client import _loop_thread
            loop = _loop_thread.current_loop()
            sockets = list(loop.sockets)
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                print([s.fileno() for s in sockets], _loop_thread.current_loop() is not loop)
                print(client.get("http://a/child").text)
                client.close()
                sys.stdout.flush()
                os._exit(0)
            print(os.waitpid(pid, 0)[1])
            fake.held[0].reply(respond(body="the parent's call in flight"))
            thread.join()
            print(answers[0].text)
            print(client.get("http://a/after").text, len(fake._peers))
            client.close()
        """
    ) == [
        "http://a/before",
        "[-1] True",
        "http://a/child",
        "0",
        "the parent's call in flight",
        "http://a/after 2",
    ]


def test_a_child_forked_in_the_middle_of_everything_can_make_calls():
    """Other threads hold locks and are in every phase of a call while the fork happens."""
    assert run(
        """
        stop = False
        with FakeRuntime(lambda r: respond(body="ok")) as fake:
            client = RuntimeClient(fake.config)

            def work():
                while not stop:
                    client.get(URL)
                    other = RuntimeClient(fake.config)
                    other.get(URL)
                    other.close()

            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            results = []
            for _ in range(10):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(20)
                    os._exit(0 if client.get(URL).text == "ok" else 1)
                results.append(os.waitpid(pid, 0)[1])
            stop = True
            for thread in threads:
                thread.join()
            client.close()
            print(results)
        """
    ) == [str([0] * 10)]


def test_the_loop_thread_imports_nothing_once_it_runs():
    """A fork in the middle of an import leaves the child a module that nobody finishes."""
    assert run(
        """
        from vastar_client import _loop_thread, _thread_calls
        _loop_thread.current_loop()
        before = set(sys.modules)
        with FakeRuntime(lambda r: respond(body="ok")) as fake, RuntimeClient(fake.config) as c:
            print(c.get(URL).text, {m for m in set(sys.modules) - before})
        """
    ) == ["ok set()"]


def test_a_grandchild_works_too_even_when_the_hooks_were_not_called():
    """Only the process id tells, as after a fork by foreign code."""
    assert run(
        """
        from vastar_client import _loop_thread
        with FakeRuntime(lambda r: respond(body="ok")) as fake:
            client = RuntimeClient(fake.config)
            client.get(URL)
            loop = _loop_thread.current_loop()
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                _loop_thread._Current.loop = loop  # as if the hook had not run
                good = client.get(URL).text == "ok"
                if os.fork() == 0:
                    signal.alarm(20)
                    os._exit(0 if client.get(URL).text == "ok" else 1)
                os._exit(os.wait()[1] or not good)
            print(os.waitpid(pid, 0)[1])
            client.close()
        """
    ) == ["0"]


@pytest.mark.parametrize("first_call", ["", "client.get(URL)"])
def test_a_call_in_an_exit_handler_works(first_call):
    assert run(
        f"""
        import atexit
        fake = FakeRuntime(lambda r: respond(body="at exit"))
        client = RuntimeClient(dial=fake.dial)
        {first_call}
        atexit.register(lambda: print(client.get(URL).text))
        """
    ) == ["at exit"]


def test_a_program_that_forgets_to_close_ends_quietly():
    assert run(
        """
        fake = FakeRuntime(lambda r: HOLD if "hold" in r.url else respond(body="done"))
        fake.__enter__()
        client = RuntimeClient(fake.config)
        threading.Thread(target=client.get, args=("http://a/hold",), daemon=True).start()
        until(lambda: fake.held)
        print(client.get(URL).text)
        """
    ) == ["done"]


LEFT_IN_THE_MIDDLE = {
    "a loop over a stream": """
        left = iter(client.stream("GET", STREAM))
        print(next(left).data)
        """,
    "a generator over an event source": """
        def f():
            with client.events(STREAM) as events:
                yield from events
        left = f()
        print(next(left).data)
        """,
    "a generator with a client": """
        def f():
            with RuntimeClient(config) as other:
                yield other.get(URL).text
        left = f()
        print(next(left))
        """,
    "a generator that calls when it is closed": """
        def f(other):
            try:
                yield "one"
            finally:
                try:
                    other.get(URL)
                except BaseException:  # names may be gone already
                    pass
        client.connect()
        left = f(client), f(RuntimeClient(config))
        print(*map(next, left))
        """,
}


@pytest.mark.parametrize("script", LEFT_IN_THE_MIDDLE.values(), ids=LEFT_IN_THE_MIDDLE)
def test_a_program_that_leaves_something_in_the_middle_ends(script):
    """What closes it then is the interpreter's last collection, with no thread to wait for."""

    def answer(request):
        return respond_events(["one", HOLD]) if "stream" in request.url else respond(body="one")

    # The fake is here, and not in the program: it would end what is open before that is collected.
    with FakeRuntime(answer) as fake:
        config = f"RuntimeConfig(socket_path={fake.config.socket_path!r})"
        begin = f"""
        from vastar_client import RuntimeConfig
        STREAM = "http://api.test/stream"
        config = {config}
        client = RuntimeClient(config)
        """
        lines = run(textwrap.dedent(begin) + textwrap.dedent(script))
    assert lines in (["one"], ["one one"])


def test_an_interactive_shell():
    """The prompt reads one line at a time; answers show there, and nothing else does."""
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="""
from vastar_client import RuntimeClient
from vastar_client.testing import FakeRuntime, respond
client = RuntimeClient(dial=FakeRuntime([respond(body="hello")]).dial)
client.get("http://api.test/x")
exit()
""",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("<HTTPResponse 200 body=5 bytes")
    assert done.stderr.replace(">>>", "").split() == []


def test_the_runtime_loads_the_wire_and_no_client():
    assert run(
        """
        import sys
        import vastar_runtime.cli, vastar_runtime.server
        ours = [m for m in sys.modules if m.startswith("vastar_client")]
        print([m for m in ours if m != "vastar_client" and not m.startswith("vastar_client.wire")])
        """,
        prelude="",
    ) == ["[]"]


def test_every_public_name_loads_and_is_listed():
    for name in vastar_client.__all__:
        assert getattr(vastar_client, name).__name__ == name
    assert set(vastar_client.__all__) <= set(dir(vastar_client))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        vastar_client.nonsense  # noqa: B018
