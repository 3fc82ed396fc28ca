"""The command line: what can be written, and how a command is run. What the commands do is in ``commands.py``."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Coroutine, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import trio
from cyclopts import App, CycloptsError, Parameter

from erlang_interop import ErlangInteropError
from erlang_interop.runtime.addresses import parse_address

from .. import logs
from ..build import describe_build
from ..config import load_settings
from ..exposing import find_exposure
from ..metrics import statsd_client
from ..service import ServiceOptions, run_service
from . import commands, scopes
from .epmd import serve_epmd
from .failures import ExitStatus, UsageError, explain, first_error
from .joining import Joining, read_cookie, read_tls_options
from .monitoring import monitor as watch
from .targets import parse_node, parse_target, read_targets

PROGRAM = "zenmon-node"

#: An option that takes no value and has no ``--no-`` form.
Flag = Annotated[bool, Parameter(negative="", show_default=False)]

app = App(
    name=PROGRAM,
    help="An Erlang node in Python: join a cluster, watch and call BEAM processes, serve ZenMonitor.",
    help_epilogue=(
        "The cookie comes from --cookie-file, ZENMON_COOKIE or ~/.erlang.cookie; EPMD's port from ERL_EPMD_PORT; "
        "with ERL_DIST_PORT, all nodes listen on that port and no EPMD is asked. "
        "Exit status: 0 done, 1 the cluster said no, 2 usage."
    ),
    version=lambda: _version(),
    version_flags=["--version"],
)

syn = App(
    name="syn",
    help=(
        "Look into a scope of syn 3, or follow what happens in it. The command is a hidden member of the scope "
        "meanwhile; --connect names one or several of its other members, which tell of the rest."
    ),
)
app.command(syn)

#: Names of nodes: repeated, or several behind one option.
Nodes = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]

_JOIN = Joining()


def main(argv: Sequence[str] | None = None) -> ExitStatus:
    """Run one command line.

    Args:
        argv: Its words without the program's name; None: those of this program.

    Returns:
        What to exit with. Every message has been printed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except CycloptsError as error:
        return _fail(f"{' '.join(str(error).split())} See {PROGRAM} --help.", ExitStatus.USAGE)
    except BaseException as error:
        return _outcome(error)


def _run(words: Sequence[str]) -> ExitStatus:
    command, arguments, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    result = command(*arguments.args, **arguments.kwargs)
    if inspect.iscoroutine(result):
        result = trio.run(_awaited, result)
    if words in ([], ["syn"]):
        return ExitStatus.USAGE  # the help was shown, but nothing was asked for
    return result if isinstance(result, ExitStatus) else ExitStatus.DONE


def _version() -> str:
    """Name, version and build, as in ``zenmon-node 0.1.0 (compiled: C core and 19 modules)``."""
    try:
        number = version(PROGRAM)
    except PackageNotFoundError:
        number = "from a source tree that was never installed"
    return f"{PROGRAM} {number} ({describe_build()})"


async def _awaited(command: Coroutine[Any, Any, Any]) -> Any:
    return await command


def _outcome(failure: BaseException) -> ExitStatus:
    error = first_error(failure)
    if isinstance(error, ErlangInteropError):
        return _fail(*explain(error))
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # What is still buffered has no reader either: without this, Python complains about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.NO_READER
    raise failure


def _fail(message: str, status: ExitStatus) -> ExitStatus:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return status


@app.command
async def run(
    *,
    name: str,
    connect: Nodes = None,
    scope: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    visible: Flag = False,
    full: Annotated[bool, Parameter(name="--global", negative="", show_default=False)] = False,
    config: Path | None = None,
    cookie_file: Path | None = None,
    tls_optfile: Path | None = None,
    port: int | None = None,
    embedded_epmd: Flag = False,
    expose: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    metrics: str | None = None,
    statsd: str | None = None,
    report_interval: float = 5.0,
    log_level: logs.Level = "info",
    log_json: Flag = False,
) -> ExitStatus:
    """Run a node with ZenMonitor until SIGTERM or the interrupt key.

    Args:
        name: This node's name, name@host.
        connect: Nodes to connect to, and to stay connected to. Repeat it or list several.
        scope: Scopes of syn to be a member of. Repeat it or list several.
        visible: Be a visible node, as ZenMonitor on Elixir nodes needs it. It takes no part in global, and nobody there
            waits for it.
        full: Be a visible node that takes part in global: it is connected to all nodes of the cluster, and has their
            names and locks.
        config: ZenMonitor's settings, a TOML file with a table [zen_monitor]; ZENMON_* variables override it. SIGHUP
            has it read again.
        cookie_file: File whose first line is the cluster's cookie. Default: ZENMON_COOKIE, else ~/.erlang.cookie.
        tls_optfile: Speak TLS, with the options of this file, which is one for erl -ssl_dist_optfile. Default:
            ZENMON_TLS_OPTFILE, else no TLS.
        port: Port to listen on; 0 takes a free one. Default: ERL_DIST_PORT, else a free one.
        embedded_epmd: Serve as EPMD where none answers.
        expose: Functions that other nodes may call by rpc or erpc, each package.module:function; with another name in
            Erlang module:name=package.module:function. Nothing else can be called. Repeat it or list several.
        metrics: Serve metrics to Prometheus on host:port, under /metrics.
        statsd: Send metrics to the statsd on host:port, every 10 seconds.
        report_interval: Seconds between two looks at the queues; one that holds more than a sweep takes is logged.
        log_level: What is less important is not logged.
        log_json: Log JSON objects, one a line.
    """
    logs.configure(log_level, as_json=log_json)
    if not report_interval > 0:
        raise UsageError(f"--report-interval {report_interval} is not allowed: it must be more than 0 seconds")
    if statsd is not None:
        statsd_client()  # whether there is one, before anything is tried
    read_settings = partial(load_settings, config, environ=os.environ)
    options = ServiceOptions(
        name=parse_node(name),
        connect=tuple(parse_node(peer) for peer in connect or ()),
        scopes=tuple(dict.fromkeys(scope or ())),
        cookie=read_cookie(cookie_file),
        tls=read_tls_options(tls_optfile),
        settings=read_settings(),
        read_settings=read_settings if config is not None else None,
        visible="full" if full else "passive" if visible else False,
        port=port,
        embedded_epmd=embedded_epmd,
        expose=tuple(find_exposure(each) for each in expose or ()),
        metrics=parse_address(metrics) if metrics is not None else None,
        statsd=parse_address(statsd) if statsd is not None else None,
        report_interval=report_interval,
    )
    await run_service(options)
    return ExitStatus.DONE


@app.command
async def demo() -> ExitStatus:
    """Show a Python node and a genuine BEAM watching each other, on this machine alone. Takes a few seconds."""
    from ..demo import run_demo

    _quiet()
    await run_demo()
    return ExitStatus.DONE


@app.command
async def monitor(
    *words: Annotated[str, Parameter(name="targets")],
    targets: Annotated[Path | None, Parameter(name="--targets", allow_leading_hyphen=True)] = None,
    json: Flag = False,
    joining: Joining = _JOIN,
) -> ExitStatus:
    """Watch processes of any number of nodes; end when all have gone.

    On a terminal it shows a table of the nodes, and the last processes that went; otherwise it prints one line for
    each. A node that speaks ZenMonitor is watched through that, with its settings from ZENMON_* variables; another
    natively.

    Args:
        words: Each name@node, as in worker@beam@127.0.0.1, or a pid, as in `'<beam@127.0.0.1.85.0>'`.
        targets: A file with more of them, one a line; - is standard input. Lines that begin with # are left out.
        json: Print JSON objects, one a line.
    """
    _quiet()
    watched = [parse_target(word) for word in words]
    if targets is not None:
        watched += read_targets(targets)
    if not watched:
        missing = "at least one TARGET" if targets is None else f"a TARGET, and {targets} has none"
        raise UsageError(f"monitor needs {missing}; for example worker@beam@127.0.0.1")
    return await watch(watched, joining, load_settings(environ=os.environ), as_json=json)


@app.command
async def ping(node: str, /, *, joining: Joining = _JOIN) -> ExitStatus:
    """Print pong if a node answers; otherwise say why it does not.

    Args:
        node: Its name, name@host.
    """
    _quiet()
    return await commands.ping(node, joining)


@app.command
async def names(host: str = "127.0.0.1", /) -> ExitStatus:
    """Print the nodes that a host's EPMD knows. Needs no cookie.

    Args:
        host: The host to ask.
    """
    return await commands.names(host)


@app.command
async def epmd(
    *,
    port: int | None = None,
    address: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    relaxed_command_check: Flag = False,
    log_level: logs.Level = "info",
    log_json: Flag = False,
) -> ExitStatus:
    """Serve as EPMD, Erlang's port mapper, until SIGTERM, the interrupt key, or a permitted epmd -kill.

    Args:
        port: Port to listen on. Default: ERL_EPMD_PORT, else 4369.
        address: IP addresses to listen on beside the loopback ones, without which nodes of other machines find none
            of this one; 0.0.0.0 is all. Repeat it or list several. Default: those of ERL_EPMD_ADDRESS.
        relaxed_command_check: Permit epmd -kill while nodes are registered, and epmd -stop.
        log_level: What is less important is not logged.
        log_json: Log JSON objects, one a line.
    """
    logs.configure(log_level, as_json=log_json)
    return await serve_epmd(port, address or (), relaxed=relaxed_command_check)


@app.command
async def nodes(node: str, /, *, joining: Joining = _JOIN) -> ExitStatus:
    """Print the nodes that a node is connected to, and whether they are visible to it.

    Args:
        node: Its name, name@host.
    """
    _quiet()
    return await commands.nodes(node, joining)


@app.command
async def send(target: str, term: str, /, *, joining: Joining = _JOIN) -> ExitStatus:
    """Send a message to a process; fail if there is no such process.

    Args:
        target: name@node, as in worker@beam@127.0.0.1, or a pid, as in `'<beam@127.0.0.1.85.0>'`.
        term: The message, an Erlang term such as '{hello, [1, 2], <<"text">>}'.
    """
    _quiet()
    return await commands.send(target, term, joining)


@app.command
async def call(
    node: str, module: str, function: str, /, *args: str, json: Flag = False, joining: Joining = _JOIN
) -> ExitStatus:
    """Call a function on a node and print what it returns. What it prints itself goes to standard error.

    Args:
        node: Its name, name@host.
        module: The module, without quotes: lists, Elixir.Enum.
        function: The function.
        args: Its arguments, each an Erlang term.
        json: Print the result as JSON instead of an Erlang term.
    """
    _quiet()
    return await commands.call(node, module, function, args, joining, as_json=json)


@syn.command
async def members(
    scope: str, group: str, /, *, connect: Nodes = None, json: Flag = False, joining: Joining = _JOIN
) -> ExitStatus:
    """Print the members of a group, each with its metadata, one a line.

    Args:
        scope: The name of the scope, without quotes.
        group: The group, an Erlang term such as '{room, 1}'.
        connect: Members to ask. Repeat it or list several.
        json: Print JSON objects instead.
    """
    logs.configure("warning")  # a member that cannot be reached is worth one
    return await scopes.members(scope, group, connect or (), joining, as_json=json)


@syn.command
async def lookup(
    scope: str, name: str, /, *, connect: Nodes = None, json: Flag = False, joining: Joining = _JOIN
) -> ExitStatus:
    """Print the process that has a name, with its metadata.

    Args:
        scope: The name of the scope, without quotes.
        name: The name, an Erlang term such as '<<"alice">>'.
        connect: Members to ask. Repeat it or list several.
        json: Print a JSON object instead.
    """
    logs.configure("warning")  # a member that cannot be reached is worth one
    return await scopes.lookup(scope, name, connect or (), joining, as_json=json)


@syn.command(name="watch")
async def watch_scope(
    scope: str, /, *, connect: Nodes = None, json: Flag = False, joining: Joining = _JOIN
) -> ExitStatus:
    """Print what happens in a scope, until the interrupt key: first what is there, then each event as it comes.

    Args:
        scope: The name of the scope, without quotes.
        connect: Members to ask. Repeat it or list several.
        json: Print JSON objects, one a line.
    """
    logs.configure("warning")  # a member that cannot be reached is worth one
    return await scopes.watch(scope, connect or (), joining, as_json=json)


def _quiet() -> None:
    """A command that lives for a moment reports its own failure; the node's remarks on the way there are left out."""
    logs.configure("error")
