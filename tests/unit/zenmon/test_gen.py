"""What the default module sends, and which modules may take its place. Their use is tested with the Connectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.terms import Atom
from tests.unit.zenmon.ports import ref
from zenmon_node import Compatibility, gen

if TYPE_CHECKING:
    from tests.unit.zenmon.conftest import Pair


async def test_the_default_sends_what_a_gen_server_takes(pair: Pair) -> None:
    async with pair.here.open_process() as me, pair.there.open_process(name="server") as server:
        await pair.here.connect(pair.there.name)
        dest = (Atom("server"), pair.there.name)
        gen.call(me, dest, ref(1), Atom("ping"))
        gen.cast(me, dest, [1, 2])
        assert await server.receive(timeout=10) == (Atom("$gen_call"), (me.pid, ref(1)), Atom("ping"))
        assert await server.receive(timeout=10) == (Atom("$gen_cast"), [1, 2])


async def test_the_module_of_the_page(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "zenmonitor.md").read_text(encoding="utf-8")
    code = page[page.index("# relay.py") :].partition("```")[0]
    used = "\nprocesses = []\n" + code.replace("    process.send(", "    processes.append(process)\n    process.send(")
    (tmp_path / "relay_of_the_page.py").write_text(used)
    monkeypatch.syspath_prepend(tmp_path)
    pair.zen.configure(gen_module="relay_of_the_page")
    async with pair.here.open_process() as me:
        assert await pair.zen.connect(pair.there.name) is Compatibility.COMPATIBLE
        pair.zen.monitor(("nobody", pair.there.name), subscriber=me)
        assert (await me.receive(timeout=10))[4] == (Atom("zen_monitor"), Atom("noproc"))
    relay: Any = gen.load("relay_of_the_page")
    assert len(relay.processes) >= 2  # a call and a cast, and perhaps the cast that unsubscribes


def test_load() -> None:
    assert gen.load(None) is gen.load("zenmon_node.gen")
    with pytest.raises(ImportError, match="No module named 'no_such_module'"):
        gen.load("no_such_module")
    with pytest.raises(TypeError, match="it has no function call and no function cast"):
        gen.load("json")
