"""The running node: sockets, tasks, processes and the signals between them, on trio."""

from .addresses import split_name
from .distribution import ConnectionInfo
from .epmd import EpmdAddress
from .epmd_server import EpmdServer
from .events import NodeDown, NodeEvent, NodeUp
from .inline import InlineServer, crash_reason
from .node import Node
from .peer import SENT, Sending
from .process import Destination, LocalProcess, MonitorTarget, Process
from .timers import Timer

__all__ = [
    "SENT",
    "ConnectionInfo",
    "Destination",
    "EpmdAddress",
    "EpmdServer",
    "InlineServer",
    "LocalProcess",
    "MonitorTarget",
    "Node",
    "NodeDown",
    "NodeEvent",
    "NodeUp",
    "Process",
    "Sending",
    "Timer",
    "crash_reason",
    "split_name",
]
