from __future__ import annotations

import inspect
import pickle

import pytest

from erlang_interop import errors
from erlang_interop.errors import (
    CallTimeout,
    ConnectError,
    DecodeError,
    ErlangInteropError,
    Exit,
    MissingFlags,
    RemoteError,
    RemoteExit,
    RemoteProtocolError,
    TermSyntaxError,
    Throw,
)

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__]


@pytest.mark.parametrize("error", CLASSES)
def test_each_is_exported_and_in_the_tree(error: type[Exception]) -> None:
    assert error.__name__ in errors.__all__
    assert issubclass(error, ErlangInteropError) or error in (Exit, Throw)
    assert error.__name__ in str(errors.__doc__)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DecodeError("bad", 7), "bad at offset 7"),
        (DecodeError("bad"), "bad"),
        (TermSyntaxError("bad", 0), "bad, column 1"),
        (RemoteProtocolError("bad", "a@b", 3, "the rule"), "a@b: bad at offset 3 (the rule)"),
        (RemoteProtocolError("bad"), "bad"),
        (MissingFlags("bad", 4, "a@b"), "a@b: bad"),
        (ConnectError("bad", "a@b"), "bad"),
        (CallTimeout("reason"), "'reason'"),
        (CallTimeout("reason", "words"), "words"),
        (RemoteError("reason", ["frame"]), "'reason'"),
        (RemoteExit("reason", "words", signal=True), "words"),
    ],
)
def test_messages_and_pickles(error: Exception, message: str) -> None:
    assert str(error) == message
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == message
    assert vars(again) == vars(error)


def test_exit_carries_any_reason() -> None:
    assert Exit(None).reason is None
    assert not isinstance(Exit(None), ErlangInteropError)
