"""Strict, versioned documents: what crosses the disk, and how a mistake in it is told.

YAML is read as YAML 1.2 reads it: ``2:4`` is text (YAML 1.1 makes it the number 124), ``no`` is text, ``1e-3`` is a
number, and a key that stands twice is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from autoprune.errors import SpecError, suggestion


class Document(BaseModel):
    """A frozen model that refuses unknown keys; the parent of every model that crosses the disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields; what was computed from the old ones (cached properties) stays behind."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def to_data(self) -> dict[str, Any]:
        """Return plain JSON data, ``schema`` first, unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_yaml(self) -> str:
        """Return YAML that YAML 1.1 and 1.2 readers understand alike."""
        return yaml_text(self.to_data())

    def to_json(self) -> str:
        """Return compact JSON on one line."""
        return json.dumps(self.to_data(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def yaml_text(data: dict[str, Any]) -> str:
    """Return plain data as YAML that YAML 1.1 and 1.2 readers understand alike."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


D = TypeVar("D", bound=Document)


def read_yaml(path: Path) -> Any:
    """Read one YAML file.

    Raises:
        SpecError: The file is missing, unreadable, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; give the path of an existing YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{path}: cannot be read as UTF-8 text ({error}); check the path and its permissions"
        ) from error
    try:
        return yaml.load(text, Loader=_Yaml12Loader)  # noqa: S506 - a SafeLoader with fewer conversions
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        found = text.splitlines()[where.line : where.line + 1] if where else []
        bare = any(re.search(r":\s*>=", part) for part in found)
        mend = "put what begins with > in quotes" if bare else "mend that line"
        raise SpecError(f"{path}{line}: not valid YAML ({problem}); {mend}") from error


def load_document(kind: type[D], path: Path | str) -> D:
    """Read and check one document.

    Args:
        kind: The document class.
        path: A YAML file.

    Raises:
        SpecError: Names the file, the key, the value found and what is allowed.
    """
    return parse_document(kind, read_yaml(Path(path)), str(path))


def parse_document(kind: type[D], data: Any, source: str) -> D:
    """Check ``data`` against ``kind``; ``source`` names it in messages.

    Raises:
        SpecError: As for :func:`load_document`.
    """
    if not isinstance(data, Mapping):
        raise SpecError(
            f"{source}: holds {'nothing' if data is None else _shown(data)} where a mapping of keys is needed; "
            "see the README for the format"
        )
    expected = _schema_of(kind)
    if expected and data.get("schema") != expected:
        found = data.get("schema")
        raise SpecError(f"{source}: schema is {_shown(found)} where {expected!r} is needed; set 'schema: {expected}'")
    try:
        # As JSON, because only there a list may be strict about its entries and still become a tuple.
        return kind.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise SpecError(f"{source}: {_sentence(kind, data, error)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(
            f"{source}: holds a value that no document may hold ({error}); use text, numbers, lists"
        ) from error


def _schema_of(kind: type[Document]) -> str | None:
    for field in kind.model_fields.values():
        if field.alias == "schema":
            return str(get_args(field.annotation)[0])
    return None


@dataclass(frozen=True)
class _Problem:
    """One mistake: where it stands in the user's own terms, and what is wrong."""

    loc: tuple[str | int, ...]
    kind: str
    text: str
    value: Any


def _sentence(kind: type[Document], data: Mapping[Any, Any], error: ValidationError) -> str:
    found = [_problem(data, details) for details in error.errors(include_url=False)]
    # Every branch of "this or that" reports its own refusal: the one that got deepest is the one that was meant.
    problems: list[_Problem] = []
    for problem in sorted(found, key=lambda p: (-len(p.loc), p.kind.endswith("_type"))):
        if not any(deeper.loc[: len(problem.loc)] == problem.loc for deeper in problems):
            problems.append(problem)
    problems.sort(key=lambda p: p.kind != "extra_forbidden")  # a key is rather misspelt than missing
    first = problems[0]
    key = ".".join(str(part) for part in first.loc)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if not first.loc:  # keys that do not fit one another: the text names them
        return f"{first.text}{more}"
    if first.kind == "extra_forbidden":
        return f"unknown key {key!r}{suggestion(first.loc[-1], _keys_at(kind, first.loc[:-1]))}{more}"
    if first.kind == "missing":
        return f"key {key!r} is missing; add it{more}"
    alike = [p.text for p in found if p.loc == first.loc and p.kind.endswith("_type")]
    text = " or ".join(dict.fromkeys(alike)).replace("or give", "or") if first.kind.endswith("_type") else first.text
    return f"key {key!r} is {_shown(first.value)}: {text}{more}"


_WANTED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
"""Pydantic's names of types, in the words of somebody who writes YAML."""


def _problem(data: Any, details: Any) -> _Problem:
    loc: list[str | int] = []
    for part in details["loc"]:
        if isinstance(part, int):
            if not isinstance(data, list | tuple):
                continue  # a single entry that was made a list of one
            data = data[part] if part < len(data) else None
        elif isinstance(data, Mapping) and part in data:
            data = data[part]
        elif details["type"] not in ("missing", "extra_forbidden") or part is not details["loc"][-1]:
            continue  # the name of a branch of "this or that", which is no key
        loc.append(part)
    text = str(details["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if details["type"] in _WANTED:
        text = f"give {_WANTED[details['type']]}"
    return _Problem(tuple(loc), details["type"], text, details["input"])


def _keys_at(kind: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    current: type[BaseModel] | None = kind
    for part in loc:
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue  # an index or a mapping key: the model below is the one found on the way
        current = _model_in(current.model_fields[part].annotation)
    return [field.alias or name for name, field in current.model_fields.items()] if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of the YAML 1.2 core schema and no duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key if isinstance(key, str | int | float) else id(key))
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: Any) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0) if text.lstrip("+-").startswith(("0o", "0x")) else int(text)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which YAML 1.1 or YAML 1.2 would read as something else."""


_Yaml12Loader.yaml_implicit_resolvers = {}
_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _Yaml12Loader.construct_yaml_int)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
):
    for _handler in (_Yaml12Loader, _Dumper):
        _handler.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
