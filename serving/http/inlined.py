"""JSON schemas that stand on their own."""

from typing import Any


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references: those of a part would point nowhere within OpenAPI's document.

    Args:
        schema: as of pydantic's `model_json_schema`; one that refers to itself is not meant.
    """
    found: dict[str, Any] = _inlined(schema, schema.get("$defs", {}))
    return found


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(one, definitions) for key, one in schema.items() if key != "$defs"}
