"""The data folders ``search_spaces/`` and ``hw_models/``: found in a wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path

from autoprune.errors import SpecError, unknown_name

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """Return the data folder ``name``: inside the package (wheel), or beside it (checkout).

    Raises:
        SpecError: The installation lacks it.
    """
    for place in (_PACKAGE / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise SpecError(f"this installation of autoprune lacks its folder {name!r}; install it again")


def names(folder_name: str) -> list[str]:
    """Return the names of all documents in a data folder, sorted."""
    return sorted(path.stem for path in folder(folder_name).glob("*.yaml"))


def find(kind: str, folder_name: str, name: str, relative_to: Path | None = None) -> Path:
    """Return the file behind a name or a path.

    Args:
        kind: Singular noun for messages ("device").
        folder_name: Data folder to look in.
        name: A document's name, or a path ending in .yaml or .yml.
        relative_to: Folder of the document that holds the reference; tried before the working directory.

    Raises:
        UnknownNameError: No such document.
        SpecError: No such file.
    """
    if name.endswith((".yaml", ".yml")):
        places = list(dict.fromkeys(base / name for base in (relative_to, Path()) if base is not None))
        for place in places:
            if place.is_file():
                return place
        raise SpecError(f"{kind} file {name!r} does not exist; looked for {', '.join(str(p) for p in places)}")
    known = names(folder_name)
    if name not in known:
        raise unknown_name(kind, name, known)
    return folder(folder_name) / f"{name}.yaml"
