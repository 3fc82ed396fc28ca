"""ZenMonitor and syn on an Erlang node written in Python."""

from .app import Watch, ZenMonitor, ZenMonitorStopped, open_zen_monitor
from .config import Settings, SettingsError, load_settings
from .local.api import Cached, CachedCompatibility, Compatibility
from .status import Down, Remote, Statistics
from .syn.api import Scope, add_node_to_scopes, node_scopes, open_scope
from .syn.conflict import Claim
from .syn.errors import (
    InvalidRemoteScope,
    InvalidScope,
    NameUndefined,
    NotAlive,
    NotInGroup,
    NotSelf,
    RaceCondition,
    SynError,
    Taken,
)
from .syn.handler import EventHandler
from .syn.multi_call import Replies, multi_call_reply
from .syn.names import Registered
from .syn.pg import Member

__all__ = [
    "Cached",
    "CachedCompatibility",
    "Claim",
    "Compatibility",
    "Down",
    "EventHandler",
    "InvalidRemoteScope",
    "InvalidScope",
    "Member",
    "NameUndefined",
    "NotAlive",
    "NotInGroup",
    "NotSelf",
    "RaceCondition",
    "Registered",
    "Remote",
    "Replies",
    "Scope",
    "Settings",
    "SettingsError",
    "Statistics",
    "SynError",
    "Taken",
    "Watch",
    "ZenMonitor",
    "ZenMonitorStopped",
    "add_node_to_scopes",
    "load_settings",
    "multi_call_reply",
    "node_scopes",
    "open_scope",
    "open_zen_monitor",
]
