"""The way of a call through the policies to its connector, composed in one place."""

from vastar_runtime.pipeline.compose import Connector, Pipeline

__all__ = ["Connector", "Pipeline"]
