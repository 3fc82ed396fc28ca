"""What an attempt says of itself; attempts at work are in test_handshakes.py."""

from erlang_interop.flags import OFFERED
from erlang_interop.runtime.attempts import Attempt
from erlang_interop.wire.handshake import Acceptor, Initiator


def test_it_says_what_the_peer_owes() -> None:
    attempt = Attempt("10.0.0.1:4711")
    assert attempt.address == "10.0.0.1:4711"
    assert attempt.silent
    attempt.awaiting = "nothing took the connection"
    assert attempt.owes() == "nothing took the connection"
    attempt.handshake = Acceptor("b@h", OFFERED, 1, "secret", 2)
    assert attempt.silent
    assert attempt.owes() == "it still owes its name (RECV_NAME)"
    attempt.handshake.receive_data(Initiator("a@h", "b@h", OFFERED, 1, "secret", 3).data_to_send())
    assert not attempt.silent
    assert attempt.owes() == "nothing took the connection", "this side decides what to answer: the peer owes nothing"
