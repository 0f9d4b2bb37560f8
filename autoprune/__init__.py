"""autoprune: hardware-aware automated pruning search for PyTorch.

Names are loaded when they are first used (PEP 562), so ``import autoprune`` is fast and a production trainer never pulls in
what only a search needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "PruningConfig": "autoprune.spec.config",
    "load_config": "autoprune.spec.config",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("autoprune")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
