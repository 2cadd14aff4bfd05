"""A fuzzer for the wire protocol: it attacks any runtime that listens, ours or another's.

`python -m tools.fuzz --socket PATH --profile all --minutes 5` prints what broke, as the smallest
sequence of bytes that shows it, and writes it to a file for `--replay FILE`.

Shape: whatever is drawn becomes a list of plain steps (open, send these bytes, half-close, wait),
and a judge that knows nothing of how they were drawn compares bytes sent with bytes received. So
one list of steps is the report, the replay and what is made smaller; the judge is the same for all.

- `strategies` draws frames, at three levels: bytes, FlatBuffers, meaning. Useful by itself.
- `_machine` is the stateful machine that draws steps (Hypothesis rules, one set for each profile).
- `_world` carries steps out over real sockets; `_upstream` is the HTTP server behind the runtime.
- `_model` is the judge of one connection, `_calls` of one call, `_violation` what they raise.
- `_steps` is the file format, `_minimise` makes a failing list smaller, `_cli` the command.
- `planted` breaks a copy of our runtime on purpose, and asks whether the fuzzer notices.
- `targets` are functions of bytes, each with an oracle; `coverage` (extra `fuzz`) attacks them with
  atheris, from the corpus in `tests/fuzz_corpus`.
"""
