"""The atoms that process signals are made of (ERTS manual, "Processes")."""

from __future__ import annotations

from typing import Final

from ..terms import Atom

DOWN: Final = Atom("DOWN")
EMPTY: Final = Atom("")
EXIT: Final = Atom("EXIT")
KILL: Final = Atom("kill")
KILLED: Final = Atom("killed")
NOCONNECTION: Final = Atom("noconnection")
NOPROC: Final = Atom("noproc")
NORMAL: Final = Atom("normal")
PROCESS: Final = Atom("process")
SHUTDOWN: Final = Atom("shutdown")
UNDEFINED: Final = Atom("undefined")
