"""A deterministic simulation of the whole runtime: one seed, one run, every invariant watched.

`python -m tools.simulate --seed N --steps M` runs the real runtime, all of it but its sockets,
between simulated callers and simulated upstreams, in virtual time and without threads. The idea is
that of FoundationDB and TigerBeetle: whoever controls time, order, chance and the network can have
a year of faults in a minute, and every failure again by its seed.

Shape, from the outside in:

- `_simulation` is the driver. Its task is the clock as well: one action, then everything that can
  happen at this instant, then the invariants look, then time moves to the next event. A run ends in
  a recovery (all upstreams well: everybody is served, circuits close) or in a drain, and nothing
  may be left.
- `tools.chance` makes it repeatable: named streams of one seed, Trio's scheduler seeded, no
  collector. `_event_log` is what happened, and its SHA-256 is what two runs are compared by.
- `_setup` draws tenants, hosts and a configuration; `_actions` draws what happens in a step (calls,
  cancels, closed connections, moods of upstreams, crashes, steps of the wall clock, reloads).
- `_callers`, `_upstreams`, `_moods` and `_line` are the world around the runtime; `_seam` is where
  attempts and turns are noted inside of it; `_records` is all that was seen.
- `_rules` lists the invariants, each a small function named after what holds, in `_rules_*`. They
  believe bytes, times and what callers and upstreams saw rather than what the runtime says; a few
  look at its machines, for what only those know (the state of a circuit, what is still held).

Calls that were made before a reload are not held to numbers: which of two configurations counts for
them is not decided here.
"""

from tools.simulate._simulation import Report, simulate

__all__ = ["Report", "simulate"]
