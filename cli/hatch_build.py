"""Puts the core package `rushes` into what is built, for operators' verbs: it is on no package index.

Not into an editable installation, where a copy would hide the sources. A source distribution carries it in `core`.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CoreBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling looks for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the core's folder, from the checkout or from a source distribution."""
        if version == "editable":
            return
        root = Path(self.root)
        carried, checkout = root / "core" / "rushes", root.parent / "layers" / "core" / "rushes"
        source = carried if carried.is_dir() else checkout
        build_data["force_include"][str(source)] = "rushes" if self.target_name == "wheel" else "core/rushes"
