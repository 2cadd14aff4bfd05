"""A fuzzer for the wire protocol: it attacks any runtime that listens, ours or another's.

`python -m tools.fuzz --socket PATH --profile all --minutes 5` prints what broke, as the smallest
sequence of bytes that shows it, and writes it to a file for `--replay FILE`.

Shape: whatever is drawn becomes a list of plain steps (open, send these bytes, half-close, wait),
and a judge that knows nothing of how they were drawn compares bytes sent with bytes received. So
one list of steps is the report, the replay and what is made smaller; the judge is the same for all.

- `strategies` draws frames, at three levels: bytes, FlatBuffers, meaning. Useful by itself.
- `_session` and `_machine` are the stateful machines that draw steps, one set of rules a profile.
- `_world` carries steps out over real sockets (`_line`); `_upstream` is the HTTP server behind.
- `_model` judges one connection, `_calls` one call, `_circuits` circuits; `_violation` is raised.
- `_steps` is the file format, `_minimise` makes a failing list smaller, `_cli` the command.
- `planted` breaks a copy of our runtime on purpose, and asks whether the fuzzer notices.
- `targets` are functions of bytes, each with an oracle; `coverage` (extra `fuzz`) attacks them with
  atheris, from the corpus in `tests/fuzz_corpus`.
"""
