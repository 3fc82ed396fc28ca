"""Hypothesis for all property tests: a loaded machine is slow, and that is no failure."""

from hypothesis import settings

settings.register_profile("zenmon", deadline=None)
settings.load_profile("zenmon")
