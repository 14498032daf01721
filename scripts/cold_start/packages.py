"""The import folders of measured processes: the layers as they are deployed, and packages as pip installs them.

Made from this environment's own installation, which has the same versions as the layer, so neither `sam build` nor a
network is needed. All of them have byte code, like the boto3 that comes with Lambda.
"""

import compileall
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

ROOT = Path(__file__).parents[2]
_REQUIREMENTS = ROOT / "layers" / "dependencies" / "requirements.txt"
# The tracer's packages, which the usual stack needs and our layer does not have.
_TRACING = ("aws-xray-sdk", "wrapt")


@dataclass(frozen=True)
class Packages:
    """Folders for a process's import path, and their unzipped bytes: of `installed` without byte code and tracing."""

    deployed: list[str]
    installed: list[str]
    bytes: int
    installed_bytes: int

    @classmethod
    def make(cls, folder: Path) -> "Packages":
        """Makes both kinds in an empty folder."""
        build, installed = folder / "build", folder / "installed"
        dependencies, core = build / "DependenciesLayer" / "python", build / "CoreLayer" / "python"
        for name in _pinned():
            _copy(name, dependencies)
            _copy(name, installed)
        installed_bytes = _weight(installed)
        for name in _TRACING:
            _copy(name, installed)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "layers" / "core" / "rushes", core / "rushes", ignore=ignored)
        pack = [sys.executable, str(ROOT / "scripts" / "pack.py"), str(build), "--for-this-python"]
        subprocess.run(pack, check=True)
        compileall.compile_dir(installed, quiet=2)
        return cls([str(core), str(dependencies)], [str(installed)], _weight(build), installed_bytes)

    def uncompiled(self, modules: Iterable[str]) -> set[str]:
        """The names of those modules that come from the layers and have no byte code there."""
        return {
            name for name in modules for source in self._sources(name) if not Path(cache_from_source(source)).exists()
        }

    def _sources(self, module: str) -> Iterator[str]:
        for folder in self.deployed:
            path = Path(folder, *module.split("."))
            yield from (str(file) for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists())


def _weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _pinned() -> list[str]:
    """The names of the dependency layer's packages."""
    return re.findall(r"^([A-Za-z0-9._-]+)==", _REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)


def _copy(name: str, folder: Path) -> None:
    for file in importlib.metadata.distribution(name).files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
