"""A deterministic simulation of the whole runtime: one seed, one run, every invariant watched."""

from tools.simulate._simulation import Report, simulate

__all__ = ["Report", "simulate"]
