"""A server in Python that answers as calculator.erl of rebar_fixtures does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erlang_interop import NO_REPLY, Atom, Exit, GenServer, Stop, text

if TYPE_CHECKING:
    from erlang_interop import From, Term


class Calculator(GenServer):
    def init(self, *args: Any, **kwargs: Any) -> None:
        self.kept: list[From] = []
        self.seen: list[Term] = []

    def handle_call(self, request: Term, from_: From) -> Any:
        match request:
            case (Atom("add"), a, b):
                return a + b
            case (Atom("echo"), term):
                return term
            case Atom("from"):
                return from_
            case Atom("seen"):
                return self.seen
            case Atom("keep"):
                self.kept.append(from_)
                return NO_REPLY
            case (Atom("answer_kept"), term):
                for kept in self.kept:
                    self.reply(kept, term)
                return len(self.kept)
            case (Atom("crash"), message):
                raise ValueError(text(message))
            case (Atom("exit"), reason):
                raise Exit(reason)
            case (Atom("stop"), reason):
                return Stop(reason, reply=Atom("stopping"))
            case (Atom("stop_silent"), reason):
                return Stop(reason)
        return super().handle_call(request, from_)

    def handle_cast(self, message: Term) -> Any:
        match message:
            case (Atom("store"), term):
                self.seen.append(term)
                return None
            case (Atom("stop"), reason):
                return Stop(reason)
            case (Atom("bad_return"), value):
                return value
        return super().handle_cast(message)

    def handle_info(self, message: Term) -> Any:
        self.seen.append((Atom("info"), message))
