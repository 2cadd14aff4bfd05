"""The tests of the pipeline hold over shared machines as they do over plain ones."""

import subprocess
import sys

import pytest

from tests.support.commands import ROOT, environment


@pytest.mark.slow
def test_the_pipeline_does_not_see_the_difference():
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.support.shared_pipeline",
            "-p", "no:cacheprovider", "-m", "not slow", "tests/runtime/pipeline",
            # A shared machine takes more memory beside what is shared.
            "--deselect", "tests/runtime/pipeline/test_machines_memory.py",
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
