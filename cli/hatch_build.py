"""Adds the core package `rushes`, which is on no package index, to the built distribution for operators' verbs.

An editable installation does not get it, since a copy would shadow the sources. A source distribution has it in `core`.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CoreBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """The build hook for hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the core's folder, from the checkout or from a source distribution."""
        if version == "editable":
            return
        root = Path(self.root)
        bundled, checkout = root / "core" / "rushes", root.parent / "layers" / "core" / "rushes"
        source = bundled if bundled.is_dir() else checkout
        build_data["force_include"][str(source)] = "rushes" if self.target_name == "wheel" else "core/rushes"
