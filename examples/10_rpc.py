"""rpc and erpc, both ways: Python calls a BEAM, and lets itself be called.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/10_rpc.py beam@127.0.0.1
then there:      Py = 'example10@127.0.0.1'.
                 rpc:call(Py, python, mean, [[1, 2, 6]]).         % 3.0
                 erpc:call(Py, python, mean, [[]]).               % {'StatisticsError',<<"mean requires ...">>}
                 rpc:call(Py, python, slow_sum, [[1, 2, 3]]).     % 6, computed in a thread
                 rpc:call(Py, os, getpid, []).                    % {badrpc,{'EXIT',{undef,...}}}, it is not exposed
                 rpc:cast(Py, python, stop, []).

You will see     what functions of the BEAM return, and each way in which a call can fail; then what is called here.
"""

import statistics
import sys
import time

import trio

from erlang_interop import Atom, CallTimeout, RemoteError, RemoteThrow, open_node


async def mean(numbers: list[float]) -> float:
    """An async function may wait, and holds up nobody meanwhile."""
    print(f"mean of {numbers}", flush=True)
    await trio.sleep(0.01)
    return statistics.mean(float(number) for number in numbers)


def slow_sum(numbers: list[int]) -> int:
    """It computes for long: exposed with ``thread=True`` it holds up nobody either."""
    print(f"sum of {numbers}", flush=True)
    time.sleep(0.1)
    return sum(numbers)


async def main(peer: str) -> None:
    """Call there, be called here."""
    stopped = trio.Event()
    async with open_node("example10@127.0.0.1") as node:
        print("lists:sum([1,2,3]) is", await node.erpc_call(peer, "lists", "sum", [[1, 2, 3]]))
        try:
            await node.erpc_call(peer, "erlang", "hd", [[]])
        except RemoteError as error:
            print(f"RemoteError: {error}")
        try:
            await node.erpc_call(peer, "erlang", "throw", [Atom("ball")])
        except RemoteThrow as thrown:
            print("caught", thrown.reason.name)
        try:
            await node.erpc_call(peer, "timer", "sleep", [2000], timeout=0.1)
        except CallTimeout as error:
            print(f"CallTimeout: {error}")

        requests = [node.erpc_send_request(peer, "math", "sqrt", [number]) for number in (4, 9, 16)]
        print("roots:", [await request.receive_response(5.0) for request in requests])

        node.expose("python", {"mean": mean, "stop": stopped.set})
        node.expose("python", {"slow_sum": slow_sum}, thread=True)
        print("waiting to be called", flush=True)
        await stopped.wait()
        print("stopped")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
