"""Errors as one line and a number."""

from __future__ import annotations

from erlang_interop import Atom, BadName, CallTimeout, ConnectRefused, CookieMismatch, ErlangInteropError
from zenmon_node.cli import ExitStatus
from zenmon_node.cli.failures import explain, first_error


def test_explanations() -> None:
    assert explain(BadName("bad")) == ("bad", ExitStatus.USAGE)
    assert explain(ErlangInteropError("two\nlines")) == ("two lines", ExitStatus.REFUSED)
    text, status = explain(CallTimeout(Atom("timeout"), "x; timeout= allows more (None: for ever)"))
    assert (text, status) == ("x; --timeout allows more", ExitStatus.REFUSED)
    inner = ErlangInteropError("it")
    assert first_error(ExceptionGroup("outer", [ExceptionGroup("group", [inner])])) is inner


def test_a_wrong_cookie_says_where_the_right_one_goes() -> None:
    error = ConnectRefused("no", "beam@127.0.0.1")
    error.__cause__ = CookieMismatch("cookies differ")
    text, status = explain(error)
    assert "--cookie-file" in text
    assert status is ExitStatus.REFUSED
