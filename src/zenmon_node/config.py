"""Settings, by the names and in the units of ZenMonitor.

Three sources, later ones win: a TOML file (table ``[zen_monitor]``), variables ``ZENMON_<NAME>`` of the environment,
and code. A name that is not known or a value out of range is a :class:`SettingsError` that says which and what is
allowed: the original takes any name, and a misspelt one has silently tuned nothing.

**Times are whole milliseconds, as in ZenMonitor**, so that a value can be carried over from an Elixir configuration as
it stands; everywhere else in these packages times are seconds.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from erlang_interop.errors import ErlangInteropError

from . import gen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The table of the settings in a TOML file.
TABLE: Final = "zen_monitor"
#: What the variables of the environment begin with.
PREFIX: Final = "ZENMON_"
#: Beginnings of variables with that prefix that are no settings: of the command line, of building, and of testing.
OTHER_VARIABLES: Final = (
    "ZENMON_COOKIE",
    "ZENMON_TLS_OPTFILE",
    "ZENMON_COMPILE",
    "ZENMON_BUILD",
    "ZENMON_OTP",
    "ZENMON_FUZZ",
)
#: Settings of the original that mean nothing here, and why.
NOT_HERE: Final = {
    "batcher_lookup_timeout": "the Batchers are part of the Proxy, so none is looked up and there is nothing to wait "
    "for: leave it out",
}


class SettingsError(ErlangInteropError):
    """A setting has an unknown name or a value that is not allowed."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """ZenMonitor's settings. Make one with :func:`load_settings` or directly; ``changed()`` gives a checked copy."""

    connector_sweep_interval: Annotated[int, Meta(ge=1, le=3_600_000)] = 100
    """Milliseconds between two batches of subscriptions sent to one remote Proxy."""
    connector_chunk_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 5000
    """Most instructions in one of those batches."""
    batcher_sweep_interval: Annotated[int, Meta(ge=1, le=3_600_000)] = 100
    """Milliseconds between two summaries of deaths sent to one remote subscriber."""
    batcher_chunk_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 5000
    """Most death certificates in one of those summaries."""
    demand_interval: Annotated[int, Meta(ge=1, le=3_600_000)] = 100
    """Milliseconds between two deliveries of DOWN messages to the processes of this node."""
    demand_amount: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Most DOWN messages in one of those deliveries, over all subscribers and all remote nodes."""
    hibernation_threshold: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Sweep intervals without work after which a server gives back the memory of tables that have become empty."""
    max_binary_size: Annotated[int, Meta(ge=3, le=16_777_216)] = 1024
    """Bytes to which a binary in an exit reason is cut."""
    truncation_depth: Annotated[int, Meta(ge=0, le=64)] = 3
    """Levels of an exit reason that are kept."""
    gen_module: str | None = None
    """Dotted name of a Python module through which Connectors talk to Proxies, see :mod:`zenmon_node.gen`; None: that
    module itself, which sends plain messages."""

    def changed(self, **changes: Any) -> Settings:
        """A copy with some settings changed, checked like the rest.

        Raises:
            SettingsError: an unknown name, or a value out of range.
        """
        return settings_from({**msgspec.to_builtins(self), **changes}, source="settings")

    def __post_init__(self) -> None:
        # msgspec checks what it converts, not what code passes to the constructor.
        for field in msgspec.structs.fields(type(self)):
            _check(field.name, getattr(self, field.name), "settings")


def settings_from(values: Mapping[str, Any], *, source: str) -> Settings:
    """Settings from a mapping of names to values.

    Args:
        values: Settings by name; what is missing keeps its default.
        source: Where they come from, for the error message.

    Raises:
        SettingsError: an unknown name, or a value out of range.
    """
    for name, value in values.items():
        if name not in Settings.__struct_fields__:
            raise SettingsError(f"{source}: there is no setting {name!r}{_explanation(name)}")
        _check(name, value, source)
    return Settings(**values)


def load_settings(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from a file, the environment and code; the later win.

    Args:
        path: A TOML file with a table ``[zen_monitor]``, or None.
        environ: Variables, usually ``os.environ``; those that begin with ``ZENMON_`` are read. None: no environment.
        overrides: Settings by name, from code or a command line.

    Raises:
        SettingsError: the file cannot be read, a name is unknown, or a value is out of range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values.update(_read_toml(path))
    if environ is not None:
        values.update(_read_environment(environ))
    settings = settings_from(values, source=str(path) if path is not None else "environment")
    return settings.changed(**overrides) if overrides else settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from error
    for name in document:
        if name != TABLE:
            raise SettingsError(f"{path}: there is no table or key {name!r}; settings belong into [{TABLE}]")
    table = document.get(TABLE, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: {TABLE!r} must be a table, written [{TABLE}]")
    settings_from(table, source=str(path))
    return table


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable.startswith(OTHER_VARIABLES):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in Settings.__struct_fields__:
            raise SettingsError(f"environment: {variable} is no setting{_explanation(name, PREFIX)}")
        try:
            values[name] = int(text) if name in RANGES else text
        except ValueError:
            raise SettingsError(f"environment: {variable}={text!r}: {_allowed(name)}") from None
        _check(name, values[name], f"environment: {variable}")
    return values


def _check(name: str, value: Any, source: str) -> None:
    if name not in RANGES:
        try:
            gen.load(value)
        except (ImportError, TypeError) as error:
            raise SettingsError(
                f"{source}: {name} = {value!r} is not allowed: {error}; it must be the dotted name of a Python module "
                f"with functions call(process, dest, ref, request) and cast(process, dest, request), as zenmon_node.gen"
            ) from error
        return
    low, high = RANGES[name]
    if type(value) is not int or not low <= value <= high:
        raise SettingsError(f"{source}: {name} = {value!r} is not allowed: {_allowed(name)}")


def _allowed(name: str) -> str:
    low, high = RANGES[name]
    unit = " (milliseconds)" if name.endswith("_interval") else ""
    return f"it must be a whole number from {low} to {high}{unit}"


def _explanation(name: str, prefix: str = "") -> str:
    if name in NOT_HERE:
        return f" here: {NOT_HERE[name]}"
    near = difflib.get_close_matches(name, Settings.__struct_fields__, n=1)
    if near:
        return f"; did you mean {prefix}{near[0].upper() if prefix else near[0]}?"
    return f"; there are {', '.join(Settings.__struct_fields__)}"


def _ranges() -> dict[str, tuple[int, int]]:
    """Name -> least and greatest value, read from the annotations: the one place where they are written."""
    ranges: dict[str, tuple[int, int]] = {}
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]
        kind = field.type
        if isinstance(kind, msgspec.inspect.IntType) and kind.ge is not None and kind.le is not None:
            ranges[field.name] = (kind.ge, kind.le)
    return ranges


#: Setting -> least and greatest value, of all that are numbers.
RANGES: Final = _ranges()
