"""Who is not let in, and what is said of it: one line in our log, and an error for whoever dialled."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import (
    Atom,
    CertificateError,
    ConnectRefused,
    ConnectTimeout,
    TlsClient,
    TlsError,
    TlsOptions,
    TlsServer,
)
from tests.certificates import Authority, options
from tests.interop.collectors import PATIENCE, has_lost, until
from tests.interop.tls import dialled_by, messages_go_both_ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import Node
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener
    from tests.interop.tls import SecureBeams, SecureNodes

#: What is wrong with a node's options, as the others of the cluster see it.
WRONG: dict[str, Callable[[Authority], TlsOptions]] = {
    "another CA": lambda authority: _of_a_stranger(authority),
    "expired": lambda authority: options(authority, authority.issue(expired=True)),
    "another host": lambda authority: options(authority, authority.issue("other.example")),
    "no certificate": lambda authority: TlsOptions(authority.options().server, TlsClient(cacertfile=authority.file)),
    "no version": lambda authority: options(authority, authority.issue(), versions=("tlsv1.3",)),
}


def _of_a_stranger(authority: Authority) -> TlsOptions:
    stranger = Authority(authority.folder)
    return options(stranger, stranger.issue(), trusted=authority.file)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def one_complaint(caplog: pytest.LogCaptureFixture) -> str:
    """The one line that was logged; it names the peer's address."""
    await until(lambda: bool(complaints(caplog)))
    (line,) = complaints(caplog)
    assert line.startswith("handshake with 127.0.0.1:"), line
    return line.partition(" failed: ")[2]


async def refusal(node: Node, beam: Beam) -> TlsError:
    """Why ``node`` cannot connect to ``beam``: it is told, and does not wait until the time is up (ConnectTimeout)."""
    with pytest.raises(ConnectRefused) as caught:
        await node.connect(beam.name)
    assert caught.value.peer == beam.name
    assert isinstance(caught.value.__cause__, TlsError)
    return caught.value.__cause__


@pytest.mark.rule("TLS: we dial a BEAM whose certificate is not good, and say why")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("another CA", "the certificate of {beam} is not signed by a CA of cacertfile "),
        ("expired", "the certificate of {beam} has expired: renew it there"),
        ("another host", "the certificate of {beam} is not for 127.0.0.1, the host in the node's name: issue one"),
    ],
)
async def test_we_do_not_trust_a_beam(
    authority: Authority, fresh: SecureBeams, node: Node, beam: Beam, wrong: str, message: str
) -> None:
    await node.connect(beam.name)
    odd = fresh(WRONG[wrong](authority))
    error = await refusal(node, odd)
    assert isinstance(error, CertificateError)
    assert str(error).startswith(message.format(beam=odd.name))
    await messages_go_both_ways(node, beam)


@pytest.mark.rule("TLS: a BEAM whose certificate is not good dials, and the log says why")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("another CA", "its certificate is not signed by a CA of cacertfile "),
        ("expired", "its certificate has expired: renew it there"),
        ("no certificate", "it shows no certificate and fail_if_no_peer_cert asks for one: give certfile and keyfile"),
    ],
)
async def test_a_beam_is_not_let_in(
    authority: Authority,
    fresh: SecureBeams,
    node: Node,
    beam: Beam,
    caplog: pytest.LogCaptureFixture,
    wrong: str,
    message: str,
) -> None:
    await node.connect(beam.name)
    odd = fresh(WRONG[wrong](authority))
    assert not await dialled_by(odd, node)
    assert (await one_complaint(caplog)).startswith(message)
    assert not node.is_connected(odd.name)
    await messages_go_both_ways(node, beam)


@pytest.mark.rule("TLS: a BEAM that we dial does not trust our certificate, and we say so")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("another CA", "{beam} does not know the CA of this node's certificate: add that CA to its cacertfile"),
        ("expired", "{beam} says that this node's certificate has expired"),
        ("no certificate", "{beam} wants a certificate of this node: give certfile and keyfile in the client options"),
    ],
)
@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_a_beam_does_not_trust_us(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, version: str, wrong: str, message: str
) -> None:
    beam = fresh(options(authority, authority.issue(), versions=(version,)))
    async with secure(WRONG[wrong](authority)) as node:
        error = str(await refusal(node, beam))
        if wrong == "no certificate" and version == "tlsv1.2":  # in which there is no alert for this
            assert "(alert handshake_failure)" in error
            assert "or it wants a certificate of this node (certfile)" in error
        else:
            assert error == message.format(beam=beam.name)


@pytest.mark.rule("TLS: a BEAM that dials us does not trust our certificate, and the log says so")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("another CA", "it does not know the CA of this node's certificate: add that CA to its cacertfile"),
        ("expired", "it says that this node's certificate has expired"),
        # up to OTP 27 the alert is handshake_failure, then bad_certificate
        ("another host", r"it .*this node's certificate.* the host in (its|this node's) name"),
    ],
)
async def test_a_beam_that_dials_does_not_trust_us(
    authority: Authority, beam: Beam, secure: SecureNodes, caplog: pytest.LogCaptureFixture, wrong: str, message: str
) -> None:
    async with secure(WRONG[wrong](authority)) as node:
        assert not await dialled_by(beam, node)
        assert re.match(message, await one_complaint(caplog))


@pytest.mark.rule("TLS: two nodes without a version in common say which they have")
async def test_no_version_in_common(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, caplog: pytest.LogCaptureFixture
) -> None:
    beam = fresh(options(authority, authority.issue(), versions=("tlsv1.2",)))
    async with secure(WRONG["no version"](authority)) as node:
        common = "have no TLS version or cipher suite in common; this side has tlsv1.3: compare the options versions"
        assert str(await refusal(node, beam)).startswith(f"{beam.name} and this node {common}")
        caplog.clear()
        assert not await dialled_by(beam, node)
        assert (await one_complaint(caplog)).startswith(f"it and this node {common}")


@pytest.mark.rule("TLS: a plain BEAM that dials a TLS port is named in the log")
async def test_a_plain_beam_dials_us(
    node: Node, beam: Beam, fresh_beam: BeamFactory, caplog: pytest.LogCaptureFixture
) -> None:
    await node.connect(beam.name)
    plain = fresh_beam()
    assert not await dialled_by(plain, node)
    assert await one_complaint(caplog) == (
        f"{plain.name} dials without TLS, and this node speaks TLS alone: start {plain.name} with -proto_dist inet_tls "
        f"and its certificates, or open this node without tls="
    )
    await messages_go_both_ways(node, beam)


@pytest.mark.rule("TLS: a TLS BEAM that dials a plain port is recognised")
async def test_a_tls_beam_dials_a_plain_node(opened: NodeOpener, beam: Beam, caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as plain:
        assert not await dialled_by(beam, plain)
        assert (await one_complaint(caplog)).startswith(
            "it speaks TLS (-proto_dist inet_tls) and this node does not: open this one with tls= as well"
        )


@pytest.mark.rule("TLS: dialling a plain BEAM over TLS, and a TLS BEAM without, says which is which")
async def test_one_of_the_two_speaks_no_tls(
    secure: SecureNodes, opened: NodeOpener, beam: Beam, fresh_beam: BeamFactory
) -> None:
    plain = fresh_beam()
    async with secure(connect_timeout=1.0) as node:  # a plain BEAM waits for the rest of a message that never comes
        with pytest.raises(ConnectTimeout, match=r"does it not speak TLS \(-proto_dist inet_tls\)"):
            await node.connect(plain.name)
    async with secure() as node:
        await node.connect(beam.name)
    async with opened() as node:
        with pytest.raises(ConnectRefused, match=r"it speaks TLS \(-proto_dist inet_tls\) and this node does not"):
            await node.connect(beam.name)


@pytest.mark.rule("TLS: with a list of allowed nodes a certificate must be for the host in the node's name")
async def test_a_certificate_for_another_host_and_the_list_of_allowed_nodes(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, beam: Beam, caplog: pytest.LogCaptureFixture
) -> None:
    """As allowed_nodes/2 of inet_tls_dist.erl. Without the list any certificate of the CA will do, as on a BEAM."""
    odd = fresh(WRONG["another host"](authority))
    async with secure(allow=[beam.name, odd.name]) as node:
        assert await dialled_by(beam, node)
        assert not await dialled_by(odd, node)
        await until(lambda: bool(complaints(caplog)))
        assert any("its certificate is not for the host in its name" in line for line in complaints(caplog))
        assert node.nodes() == [Atom(beam.name)]
    async with secure() as node:
        assert await dialled_by(odd, node)
    odd_options = WRONG["another host"](authority)
    strict = fresh()
    async with secure(TlsOptions(authority.options().server, odd_options.client)) as node:
        await strict.eval("net_kernel:allow([N])", N=node.name)
        with pytest.raises(ConnectRefused):  # it says nothing, and hangs up
            await node.connect(strict.name)


@pytest.mark.rule("TLS: verify_none lets everybody in, and is logged")
async def test_verify_none(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, caplog: pytest.LogCaptureFixture
) -> None:
    beam = fresh(_of_a_stranger(authority))
    tls = TlsOptions(
        TlsServer(certfile=authority.issue(), verify="verify_none"),
        TlsClient(certfile=authority.issue(), verify="verify_none"),
    )
    async with secure(tls) as node:
        assert [line for line in complaints(caplog) if "verifies nobody (verify_none)" in line] == complaints(caplog)
        assert len(complaints(caplog)) == 2
        await node.connect(beam.name)
        await messages_go_both_ways(node, beam)
        await node.disconnect(beam.name)
        await has_lost(beam, node.name)
        assert await dialled_by(beam, node)
        await messages_go_both_ways(node, beam)


@pytest.mark.rule("TLS: silence in the handshake is bounded in time, and keeps nobody else out")
async def test_silence(secure: SecureNodes, beam: Beam, caplog: pytest.LogCaptureFixture) -> None:
    async with secure(connect_timeout=6.0) as node:
        assert await dialled_by(beam, node)
        port = await beam.eval("{port, P, _} = erl_epmd:port_please(N, {127,0,0,1}), P", N=[*node.short_name.encode()])
        assert isinstance(port, int)
        begun = trio.current_time()
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for number, each in enumerate(silent):
            each.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])
        await node.disconnect(beam.name)
        await has_lost(beam, node.name)
        assert await dialled_by(beam, node)
        assert complaints(caplog) == [], "they are waited for still"
        with trio.fail_after(PATIENCE):
            for each in silent:
                with each:
                    await trio.to_thread.run_sync(each.recv, 100)
        assert trio.current_time() - begun > 5.9
        await until(lambda: len(complaints(caplog)) == len(silent))
        assert all("did not finish the handshake within 6 s" in line for line in complaints(caplog))
        await messages_go_both_ways(node, beam)
