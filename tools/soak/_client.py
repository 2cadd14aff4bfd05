"""A client process of the soak: `python -m tools.soak._client SPEC`, told what to do by lines.

`go` and `rest` come on standard input; the journal goes to standard output. When the input ends the
one who asked is gone, and so is this process.
"""

import os
import sys
from functools import partial
from typing import NoReturn

import msgspec
import trio

from tools.soak._async_load import Orders, run_async
from tools.soak._blocking_load import BlockingLoad
from tools.soak._diary import Diary
from tools.soak._raw_load import RawLoad
from tools.soak._words import Spec

__all__ = ["main"]


def main(arguments: list[str]) -> NoReturn:
    """Serve one spec until the end of the orders."""
    spec = msgspec.json.decode(arguments[0], type=Spec)
    if spec.kind == "blocking":
        _block(spec, Diary())
    else:
        trio.run(_run, spec, Diary())
    os._exit(0)  # calls under way are of no interest any more


def _block(spec: Spec, diary: Diary) -> None:
    load = BlockingLoad(spec, diary)
    for line in sys.stdin:
        if line == "go\n":
            load.go()
        else:
            load.rest()


async def _run(spec: Spec, diary: Diary) -> None:
    orders = Orders()
    load = partial(run_async, spec, diary, orders)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(RawLoad(spec, diary, orders).run if spec.kind == "raw" else load)
        async for data in trio.lowlevel.FdStream(os.dup(0)):
            for word in bytes(data).split():
                if word == b"go":
                    orders.go()
                else:
                    orders.rest()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
