"""JSON schemas of documents, for readers in other languages: what stands in the docstrings describes each key."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from autoprune.spec.document import Document

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n      +.*)*)", re.MULTILINE)


def json_schema(kind: type[Document]) -> str:
    """Return the JSON schema (draft 2020-12) of what a document is written as.

    Optional keys are left out of a document rather than null, so they are not required and never null.
    """
    made = kind.model_json_schema(by_alias=True, mode="serialization", schema_generator=_Written)
    for described in (made, *made.get("$defs", {}).values()):
        _describe(described)
    return json.dumps({"$schema": DIALECT, **made}, ensure_ascii=False, indent=1) + "\n"


class _Written(GenerateJsonSchema):
    """Describes what ``Document.to_data`` writes."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        return made

    def field_is_required(self, field: Any, total: bool) -> bool:
        inner = field["schema"]
        return inner["type"] != "default" or inner.get("default", ...) is not None

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _describe(schema: dict[str, Any]) -> None:
    """Move the lines of a docstring's "Attributes" to the keys that they are about."""
    text, _, attributes = schema.get("description", "").partition("\n\nAttributes:\n")
    if text:
        schema["description"] = " ".join(text.split())
    for name, told in _ATTRIBUTE.findall(attributes):
        if name in schema.get("properties", {}):
            described = schema["properties"][name]
            schema["properties"][name] = {"description": " ".join(told.split()), **described}
