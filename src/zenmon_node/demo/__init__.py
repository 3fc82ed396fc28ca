"""``zenmon-node demo``: a whole tour on one machine, told in words while it happens."""

from .tour import run_demo

__all__ = ["run_demo"]
