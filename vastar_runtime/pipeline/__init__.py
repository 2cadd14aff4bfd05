"""The way of a call through the policies to its connector, composed in one place."""

from vastar_runtime.pipeline.layers import DESCRIPTOR, Connector, Pipeline, compose
from vastar_runtime.pipeline.machines import Machines
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.pipeline.upstreams import Lease, Upstreams

__all__ = [
    "DESCRIPTOR",
    "Connector",
    "Lease",
    "Machines",
    "Pipeline",
    "Surroundings",
    "Upstreams",
    "compose",
]
