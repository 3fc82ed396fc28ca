"""Whatever is asked of an EPMD, in whatever order: names are had by one node at a time, and answers can be read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.runtime.epmd_names import EpmdNames, Held
from erlang_interop.wire.epmd import (
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    PortPlease2Reply,
    PortPlease2Request,
    ReplyReader,
    RequestReader,
    StopRequest,
    TextReply,
    UnfitAlive2Request,
    encode_request,
)

NAMES = st.sampled_from(["one", "two", "blå", "a b"])
REQUESTS: st.SearchStrategy[bytes] = st.one_of(
    st.builds(Alive2Request, st.integers(0, 65535), NAMES, highest_version=st.sampled_from([5, 6, 7])),
    st.builds(PortPlease2Request, NAMES),
    st.builds(StopRequest, NAMES),
    st.sampled_from([NamesRequest(), DumpRequest(), KillRequest()]),
).map(lambda request: encode_request(request))  # type: ignore[arg-type]
#: A request, possibly with a byte changed, or bytes of any kind; or the end of the n-th registration.
STEPS = st.one_of(
    REQUESTS,
    st.builds(
        lambda data, place, byte: data[: place % len(data)] + bytes((byte,)) + data[place % len(data) + 1 :],
        REQUESTS,
        st.integers(0, 100),
        st.integers(0, 255),
    ),
    st.binary(max_size=40),
    st.integers(0, 5),
)


@given(st.lists(st.tuples(STEPS, st.booleans()), max_size=60), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_names_in_any_order(steps: list[tuple[bytes | int, bool]], relaxed: bool, creation: int) -> None:
    names = EpmdNames(creation, relaxed=relaxed)
    held: list[Held] = []
    for step, local in steps:
        if isinstance(step, int):
            if step < len(held):
                assert names.release(held.pop(step))
            continue
        try:
            received = RequestReader().receive_data(step)
            answers = [(request, names.answer(request, local=local)) for request in received]
        except RemoteProtocolError:
            continue
        for request, answer in answers:
            assert local or isinstance(request, PortPlease2Request | NamesRequest)
            if answer.held is not None:
                held.append(answer.held)
            if answer.stopped is not None:
                assert relaxed
                held.remove(answer.stopped)
            assert not answer.killed or relaxed or not held
            if isinstance(request, UnfitAlive2Request):
                assert answer.held is None
                continue
            reader = ReplyReader(request)
            reply = reader.receive_data(answer.reply)
            match request, reply or reader.receive_eof():
                case Alive2Request(), Alive2Reply(result):
                    assert (result == 0) is (answer.held is not None)
                case PortPlease2Request(name), PortPlease2Reply(result, port):
                    there = [each for each in held if each.name == name]
                    assert (result == 0) is (len(there) == 1)
                    assert result or port == there[0].request.port
                case NamesRequest(), TextReply() as text if "\n" not in "".join(each.name for each in held):
                    assert [entry.name for entry in text.names] == [each.name for each in reversed(held)]
        assert list(names) == held[::-1]
        assert len({each.name for each in held}) == len(held)
