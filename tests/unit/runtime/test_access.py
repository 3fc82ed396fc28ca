"""Cookies and allow lists; BEAMs judge the same lists in tests/interop/test_handshake_rules.py."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

import pytest

from erlang_interop.errors import (
    BadName,
    ConnectRefused,
    NotAllowed,
)
from erlang_interop.runtime.access import AllowList, Cookies
from tests.unit.runtime.calls import (
    COOKIE,
    GREATER,
    ME,
    SMALLER,
    running,
    states,
    until,
)

if TYPE_CHECKING:
    from erlang_interop.runtime import EpmdAddress


def test_a_peer_has_the_common_cookie_or_its_own() -> None:
    cookies = Cookies("common", {"beam@h": "special"})
    assert (cookies.of("beam@h"), cookies.of("other@h")) == ("special", "common")
    cookies.set("other@h", "third")
    cookies.set_own("new")
    assert [cookies.of(peer) for peer in ("beam@h", "other@h", "any@h")] == ["special", "third", "new"]


def test_a_cookie_is_never_shown() -> None:
    cookies = Cookies("sesame", {"beam@h": "sesame too"})
    assert repr(cookies) == "<Cookies, 1 of single peers>"
    for bad in ("sesame\u0142", "sesame" * 50):
        with pytest.raises(BadName) as caught:
            cookies.set("beam@h", bad)
        assert "sesame" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("cookie", "match"), [("", "empty"), ("gehe\u0142m", "beyond Latin-1"), ("x" * 256, "256 characters")]
)
def test_what_is_no_cookie_is_refused(cookie: str, match: str) -> None:
    with pytest.raises(BadName, match=match):
        Cookies(cookie)
    with pytest.raises(BadName, match=match):
        Cookies("good", {"beam@h": cookie})
    good = Cookies("good")
    with pytest.raises(BadName, match=match):
        good.set_own(cookie)
    assert good.of("beam@h") == "good"


def test_cookies_belong_to_node_names() -> None:
    with pytest.raises(BadName, match="no node name"):
        Cookies("good", {"beam": "special"})


def test_without_a_list_everybody_may_connect() -> None:
    allowed = AllowList()
    assert allowed.is_open
    assert allowed.permits("a@h")
    assert allowed.permits("h"), "the host of a node without a name"


def test_the_first_names_make_a_list_and_further_ones_add_to_it() -> None:
    allowed = AllowList()
    allowed.add([])
    assert allowed.is_open
    allowed.add(["a@h"])
    allowed.add(["b@h"])
    assert not allowed.is_open
    assert [name for name in ("a@h", "b@h", "c@h") if allowed.permits(name)] == ["a@h", "b@h"]
    assert repr(allowed) == "<AllowList ['a@h', 'b@h']>"


def test_an_empty_list_lets_nobody_in() -> None:
    allowed = AllowList([])
    assert not allowed.permits("a@h")
    allowed.add(["a@h"])
    assert allowed.permits("a@h")


def test_hosts_and_names_on_any_host() -> None:
    allowed = AllowList(["friend@h1", "h2", "ops@"])
    may = ["friend@h1", "any@h2", "ops@h3", "h2"]
    may_not = ["friend@h2x", "other@h1", "h1", "friend", "h2@h1", "ops", "opsx@h3", "ops@"]
    assert [name for name in may if not allowed.permits(name)] == []
    assert [name for name in may_not if allowed.permits(name)] == ["ops@"], "an entry permits its very self"


@pytest.mark.parametrize("entry", ["", "@", "@h", "a@b@c"])
def test_what_is_no_entry_is_refused(entry: str) -> None:
    allowed = AllowList(["a@h"])
    with pytest.raises(BadName, match="nothing to allow"):
        allowed.add(["b@h", entry])
    assert not allowed.permits("b@h"), "all or nothing"


def test_a_single_name_is_no_list() -> None:
    with pytest.raises(BadName, match=r"write \['a@h'\]"):
        AllowList("a@h")


async def test_cookies_of_single_peers(epmd: EpmdAddress, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        running(epmd, cookies={GREATER.name: "greater secret"}) as node,
        running(epmd, GREATER.name, "greater secret") as greater,
        running(epmd, SMALLER.name, "smaller secret") as smaller,
    ):
        await node.connect(GREATER)
        await node.disconnect(GREATER)
        await until(lambda: greater.connections == [])
        await greater.connect(ME)
        with pytest.raises(ConnectRefused, match="cookie"):
            await smaller.connect(ME)
        smaller.set_cookie(ME, COOKIE)
        await smaller.connect(ME)
        await smaller.disconnect(ME)
        await until(lambda: states(node) == [(GREATER.name, "up")])
        node.set_cookie(SMALLER, "third secret")
        with pytest.raises(ConnectRefused, match="cookie") as caught:
            await node.connect(SMALLER)
        smaller.set_cookie(ME, "third secret")
        await node.connect(SMALLER)
        node.set_cookie(ME, "fourth secret")
        assert "secret" not in repr(node) + repr(vars(node)) + str(caught.value)
    assert "secret" not in caplog.text
    assert COOKIE not in caplog.text


async def test_a_nodes_own_cookie_is_changed_for_all_others(epmd: EpmdAddress) -> None:
    async with running(epmd) as node, running(epmd, SMALLER.name, "new") as smaller:
        with pytest.raises(ConnectRefused, match="cookie"):
            await smaller.connect(ME)
        node.set_cookie(ME, "new")
        await smaller.connect(ME)


async def test_the_list_of_allowed_nodes_holds_both_ways(epmd: EpmdAddress, caplog: pytest.LogCaptureFixture) -> None:
    async with running(epmd) as node, running(epmd, GREATER.name) as greater, running(epmd, SMALLER.name) as smaller:
        await node.connect(SMALLER)
        node.allow([GREATER])
        assert node.is_connected(SMALLER), "what is up stays up"
        await node.disconnect(SMALLER)
        await until(lambda: smaller.connections == [])
        with pytest.raises(ConnectRefused, match="is not in the list of nodes that this node allows") as caught:
            await node.connect(SMALLER)
        assert isinstance(caught.value.__cause__, NotAllowed)
        assert smaller.connections == [], "it was not even called"
        with pytest.raises(ConnectRefused) as caught:
            await smaller.connect(ME)
        assert isinstance(caught.value.__cause__, NotAllowed)
        assert "refusing a@127.0.0.1" in caplog.text
        await greater.connect(ME)
        node.allow(["127.0.0.1"])
        await smaller.connect(ME)
