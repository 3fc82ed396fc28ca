"""The command ``zenmon-node``."""

from .app import main
from .failures import ExitStatus, UsageError

__all__ = ["ExitStatus", "UsageError", "main"]
