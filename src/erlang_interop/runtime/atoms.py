"""The atoms that process signals are made of (ERTS manual, "Processes")."""

from __future__ import annotations

from typing import Final

from ..terms import Atom

ABANDONED: Final = Atom("abandoned")
ALIAS: Final = Atom("alias")
APPLY: Final = Atom("apply")
BADARG: Final = Atom("badarg")
BADOPT: Final = Atom("badopt")
DOWN: Final = Atom("DOWN")
EMPTY: Final = Atom("")
ERLANG: Final = Atom("erlang")
ERROR: Final = Atom("error")
EXIT: Final = Atom("EXIT")
KILL: Final = Atom("kill")
KILLED: Final = Atom("killed")
LINK: Final = Atom("link")
MONITOR: Final = Atom("monitor")
NOCONNECTION: Final = Atom("noconnection")
NOPROC: Final = Atom("noproc")
NORMAL: Final = Atom("normal")
NOTSUP: Final = Atom("notsup")
OK: Final = Atom("ok")
PRIORITY: Final = Atom("priority")
PROCESS: Final = Atom("process")
SHUTDOWN: Final = Atom("shutdown")
SPAWN_REPLY: Final = Atom("spawn_reply")
SYSTEM_LIMIT: Final = Atom("system_limit")
TAG: Final = Atom("tag")
UNDEF: Final = Atom("undef")
UNDEFINED: Final = Atom("undefined")
UNENCODABLE_REASON: Final = Atom("unencodable_reason")
