"""What is written where, at once and in full."""

import os
import threading
from pathlib import Path

import pytest

from vastar_runtime.cli._taking import Output, Progress, open_output, write_all


def test_all_is_written_also_where_the_other_end_shares_a_non_blocking_one() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(1_000_000)
    found = bytearray()

    def read() -> None:
        while part := os.read(reader, 65_536):
            found.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    write_all(writer, data)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert found == data


def test_an_output_file_is_opened_as_it_is(tmp_path: Path) -> None:
    fd, is_new = open_output(str(tmp_path / "f"))
    os.write(fd, b"abc")
    os.close(fd)
    assert is_new
    fd, is_new = open_output(str(tmp_path / "f"))
    os.close(fd)
    assert not is_new
    assert (tmp_path / "f").read_bytes() == b"abc"


def _progress(times_s: list[float]) -> tuple[Progress, int]:
    reader, writer = os.pipe()
    left = iter(times_s)
    return Progress(writer, lambda: next(left)), reader


def test_a_progress_line_is_redrawn_ten_times_a_second_at_most() -> None:
    progress, reader = _progress([0.0, 1.0, 1.05, 1.5, 2.0])
    progress.total_bytes = 12_000_000
    for done_bytes in (999, 5_000_000, 6_000_000):
        progress.show(done_bytes)
    progress.show(12_000_000, is_last=True)
    lines = os.read(reader, 4096).decode().split("\r")
    assert lines[1:] == [
        "999 B of 12.0 MB  999 B/s  1.0 s",
        "6.0 MB of 12.0 MB  4.0 MB/s  1.5 s",
        "12.0 MB of 12.0 MB  6.0 MB/s  2.0 s\n",
    ]
    os.close(reader)
    os.close(progress._fd)


def test_a_shorter_line_covers_a_longer_one() -> None:
    progress, reader = _progress([0.0, 0.0, 1000.0])
    progress.show(999_950)
    progress.show(2_000_000_000_000, is_last=True)
    first, last = os.read(reader, 4096).decode().split("\r")[1:]
    assert first == "1.0 MB  0 B/s  0.0 s" or first.startswith("1000.0 kB  0 B/s")
    assert last.startswith("2.0 TB  2.0 GB/s  1000.0 s")
    os.close(reader)
    os.close(progress._fd)


@pytest.mark.parametrize(
    ("headers", "total_bytes"),
    [((("content-length", "3"),), 3), ((("content-length", "x"),), None), ((), None)],
)
def test_a_download_on_a_terminal_has_a_progress_line(
    tmp_path: Path, headers: tuple[tuple[str, str], ...], total_bytes: int | None
) -> None:
    main_fd, terminal_fd = os.openpty()
    with pytest.MonkeyPatch.context() as patched, os.fdopen(terminal_fd, "w") as terminal:
        patched.setattr("sys.stderr", terminal)
        output = Output(str(tmp_path / "f"), with_head=False)
        output.head(200, headers, None)
        output.data(b"abc")
        output.tick()
        output.close()
        said = ""
        while not said.endswith("\n"):
            said += os.read(main_fd, 4096).decode()
    os.close(main_fd)
    assert said.startswith("\r3 B of 3 B  " if total_bytes else "\r3 B  ")
    assert said.rstrip().endswith(" s")
    assert (tmp_path / "f").read_bytes() == b"abc"
