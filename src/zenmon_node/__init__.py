"""ZenMonitor and syn on an Erlang node written in Python."""

from .app import Watch, ZenMonitor, ZenMonitorStopped, open_zen_monitor
from .config import Settings, SettingsError, load_settings
from .local.api import Cached, CachedCompatibility, Compatibility
from .status import Down, Remote, Statistics

__all__ = [
    "Cached",
    "CachedCompatibility",
    "Compatibility",
    "Down",
    "Remote",
    "Settings",
    "SettingsError",
    "Statistics",
    "Watch",
    "ZenMonitor",
    "ZenMonitorStopped",
    "load_settings",
    "open_zen_monitor",
]
