"""Hatchling's build hook: compile the C core, and the hot modules with mypyc, where a C compiler is at hand.

Both stand in pyproject.toml (``tool.hatch.build.targets.wheel.hooks.custom``): ``core`` is one file in C; ``modules``
become one shared extension, so that calls from one to another are native. The sources are copied to a temporary folder
and compiled there; the source tree stays as it was. Where mypyc cannot run, the core is built alone. Without a C
compiler, or without Python's header files, the wheel is pure Python: the same modules run interpreted, and for the core
its reference in Python, slower by a factor of five to ten.

``ZENMON_COMPILE=0`` asks for the pure wheel; ``ZENMON_COMPILE=1`` makes it an error when not all can be compiled.
``ZENMON_COMPILE_CACHE=folder`` keeps the latest extensions there and takes them again while nothing they depend on has
changed; the Makefile sets it, because a change elsewhere in the package is far more frequent than one in these modules.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REQUIREMENTS = ["mypy==2.4.1", "setuptools>=68", "structlog>=24.1", "trio>=0.27"]
"""What compiling needs; the same mypy that checks the types (the ``test`` extra), and what compiled modules import."""

RUNTIME_REQUIREMENTS = ["librt>=0.16"]
"""What compiled modules import: mypyc's runtime library, small and in C. Not older than what mypy itself asks for."""

EXTENSION = "erlang_interop__mypyc"
"""The shared extension, beside the packages; the modules' own extensions are a few lines that load it."""

SETUP_PROGRAM = """
import sys
from setuptools import Extension, setup
if sys.argv[1] == "core":
    name = sys.argv[2].removesuffix(".c").replace("/", ".")
    extensions = [Extension(name, [sys.argv[2]], extra_compile_args=["-O3"])]
else:
    from mypyc.build import mypycify
    extensions = mypycify(sys.argv[2:], opt_level="3", debug_level="0", group_name={group!r})
setup(name="compiled", packages=[], ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])
"""
# argv[1] also keeps setuptools from reading the paths as commands: script_args says what to run.


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's parameter is the builder's configuration
    """Adds the compiled extensions to a wheel."""

    def dependencies(self) -> list[str]:
        """What the build environment needs on top of hatchling: nothing unless something will be compiled."""
        if not self._modules() or self._reason_not_to_compile() is not None:
            return []
        cache = self._cache()
        return [] if cache is not None and cache.is_dir() else REQUIREMENTS

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the extensions into the wheel with its platform's tag; or warn once and build a pure one.

        Args:
            version: ``standard``, or ``editable`` (whose files are the source tree's: never compiled).
            build_data: hatchling's; receives the extensions and the kind of the tag.
        """
        if version == "editable" or not self._modules():
            return
        reason = self._reason_not_to_compile()
        if reason is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="zenmon-node-build-")
            folder = Path(self._temporary.name)
            try:
                extensions = self._cached(folder) or self._compile(folder)
            except CompileError as error:
                reason = str(error)
            else:
                build_data["pure_python"] = False
                build_data["infer_tag"] = True
                build_data["force_include"] |= {str(path): str(path.relative_to(folder)) for path in extensions}
                if len(extensions) > 1:
                    build_data["dependencies"] += RUNTIME_REQUIREMENTS
                    self._keep(folder, extensions)
                return
        if setting() == "1":
            raise RuntimeError(f"ZENMON_COMPILE=1, but not all can be compiled: {reason}")
        if setting() != "0":
            self.app.display_warning(f"zenmon-node: built without compiled modules (slower, but complete): {reason}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder once the wheel is written."""
        if hasattr(self, "_temporary"):
            self._temporary.cleanup()

    def _modules(self) -> list[str]:
        """The modules to compile, paths below ``src/``; a name that is not there is an error, compiled or not."""
        modules: list[str] = self.config.get("modules", [])
        missing = [name for name in [*modules, self._core()] if not (Path(self.root) / "src" / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"pyproject.toml lists modules to compile that are not below src/: {', '.join(missing)}"
            )
        return modules

    def _core(self) -> str:
        """The C core, its path below ``src/``."""
        core: str = self.config["core"]
        return core

    def _reason_not_to_compile(self) -> str | None:
        if setting() == "0":
            return "ZENMON_COMPILE=0"
        if sys.implementation.name != "cpython":
            return f"only CPython can be compiled for, this is {sys.implementation.name}"
        return why_no_compiler()

    def _cache(self) -> Path | None:
        """The folder of the cache for exactly what would be compiled now, or None where no cache is asked for."""
        cache = os.environ.get("ZENMON_COMPILE_CACHE")
        if not cache:
            return None
        source = Path(self.root) / "src"
        folders = {(source / name).parent for name in self._modules()}
        read = sorted(path for folder in folders for path in folder.glob("*.py"))
        read.append(source / self._core())
        settings = [sys.version, sysconfig.get_config_var("EXT_SUFFIX"), *self._modules(), *REQUIREMENTS]
        settings += [os.environ.get(name, "") for name in ("CC", "CFLAGS", "LDFLAGS")]
        total = hashlib.sha256(repr(settings).encode())
        for path in [Path(__file__), *read]:
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return Path(cache) / total.hexdigest()[:32]

    def _cached(self, folder: Path) -> list[Path]:
        """Copy the extensions out of the cache to their places below ``folder``; nothing when they are not there."""
        cache = self._cache()
        if cache is None or not cache.is_dir():
            return []
        shutil.copytree(cache, folder, dirs_exist_ok=True)
        return [path for path in folder.rglob("*") if path.is_file()]

    def _keep(self, folder: Path, extensions: list[Path]) -> None:
        """Put the extensions into the cache, in place of older ones."""
        cache = self._cache()
        if cache is None or cache.is_dir():
            return
        shutil.rmtree(cache.parent, ignore_errors=not cache.parent.exists())
        unfinished = cache.with_name("unfinished")
        for path in extensions:
            kept = unfinished / path.relative_to(folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, kept)
        unfinished.rename(cache)

    def _compile(self, folder: Path) -> list[Path]:
        """Compile a copy of the sources below ``folder``: the C core, then what is mypyc's.

        Returns:
            The extensions, at the places below ``folder`` that they have in the wheel. The core's alone where mypyc
            gave up, unless ZENMON_COMPILE=1 asks for all.

        Raises:
            CompileError: The C compiler gave up, or mypyc; the message is the first line that says why.
        """
        for package in {Path(name).parts[0] for name in self._modules()}:
            shutil.copytree(
                Path(self.root) / "src" / package,
                folder / package,
                ignore=shutil.ignore_patterns("*.so", "__pycache__"),
            )
            # mypy follows each package's __init__ to all that it re-exports, down to libraries that are not here.
            for reexports in (folder / package).rglob("__init__.py"):
                reexports.write_text("")
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        core = (folder / self._core()).with_suffix(suffix)
        self._run_setup(folder, "core", [self._core()], [core])
        shared = [folder / f"{EXTENSION}{suffix}"] if len(self._modules()) > 1 else []
        compiled = [*shared, *((folder / name).with_suffix(suffix) for name in self._modules())]
        try:
            self._run_setup(folder, "modules", self._modules(), compiled)
        except CompileError as error:
            if setting() == "1":
                raise
            self.app.display_warning(f"zenmon-node: built with the C core alone, without mypyc's modules: {error}")
            return [core]
        return [core, *compiled]

    def _run_setup(self, folder: Path, what: str, sources: list[str], expected: list[Path]) -> None:
        """Have setuptools compile ``sources``, the core or the modules, in place below ``folder``.

        Raises:
            CompileError: It failed, or the ``expected`` files are not there afterwards.
        """
        program = folder / "compile_sources.py"
        program.write_text(SETUP_PROGRAM.format(group=EXTENSION.removesuffix("__mypyc")))
        done = subprocess.run(
            [sys.executable, program.name, what, *sources],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.stderr.write(done.stdout + done.stderr)
            lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit status {done.returncode}"]
            raise CompileError(next((line for line in lines if "error:" in line), lines[-1]))
        missing = [str(path.relative_to(folder)) for path in expected if not path.is_file()]
        if missing:
            raise CompileError(f"compiling made no {', '.join(missing)}")


class CompileError(Exception):
    """The modules cannot be compiled here; the message is one line."""


def setting() -> str:
    """What ``ZENMON_COMPILE`` says: ``0``, ``1`` or nothing (compile if possible)."""
    value = os.environ.get("ZENMON_COMPILE", "")
    if value not in ("", "0", "1"):
        raise ValueError(f"ZENMON_COMPILE is {value!r}; it may be 0 (never compile), 1 (compile or fail) or unset")
    return value


def why_no_compiler() -> str | None:
    """Compile one line that includes Python.h; the reason why that fails, or None."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = sysconfig.get_path("include")
    with tempfile.TemporaryDirectory(prefix="zenmon-node-probe-") as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <Python.h>\n")
        command = [*compiler, "-c", f"-I{include}", str(source), "-o", str(source.with_suffix(".o"))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"no C compiler ({compiler[0]}: {error.strerror})"
    if done.returncode == 0:
        return None
    if "Python.h" in done.stderr:
        return f"no Python.h in {include} (Debian: python3-dev)"
    return f"the C compiler {compiler[0]} does not work (exit status {done.returncode})"
