"""A plug-in of pytest: every `Machines` shares its state, as one of three workers would.

    python -m pytest -p tests.support.shared_pipeline tests/runtime/pipeline

Time stays Trio's, so the tests' virtual clock holds for the shared memory too.
"""

import os

import trio

from vastar_runtime.pipeline import machines
from vastar_runtime.pipeline.making import OWN, Maker
from vastar_runtime.pipeline.policies import PolicyBook
from vastar_runtime.sharing.layout import Layout
from vastar_runtime.sharing.memory import Memory, lay_out
from vastar_runtime.sharing.sharing import Sharing

__all__ = ["share"]


def share() -> None:
    """From now on."""
    plain = machines.Machines.__init__

    def begin(self: machines.Machines, book: PolicyBook, maker: Maker = OWN) -> None:
        if maker is OWN:
            fd = os.memfd_create("shared-pipeline")  # until the process ends
            lay_out(fd, Layout(3, 16_384))
            maker = Sharing(Memory(fd), 1, ahead_s=0.0, clock=trio.current_time)
        plain(self, book, maker)

    machines.Machines.__init__ = begin  # type: ignore[method-assign] # as a plug-in has to


share()
