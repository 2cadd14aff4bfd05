"""Connectors: they turn the operation and payload of a call into traffic to an upstream."""
