"""A YAML file as a checked document: errors name the file, the line and the key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from search.errors import ConfigError
from search.params import Config

C = TypeVar("C", bound=Config)


def read_document(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    """The YAML mapping in a file, and its syntax tree for line numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ConfigError(f"{path}: {reason.lower()}; name an experiment's YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; name an experiment's YAML file") from error
    try:
        document, tree = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from error
    if not isinstance(document, Mapping) or tree is None:
        raise ConfigError(f"{path}: a mapping of keys is expected; see configs/ for examples")
    return dict(document), tree


def validate_document(
    kind: type[C], document: Mapping[str, Any], tree: yaml.Node, path: Path, prefix: str = ""
) -> C:
    """Check one section of a document.

    Raises:
        ConfigError: for the first broken rule, with its line.
    """
    try:
        return kind.model_validate(document, context={"folder": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError(_one_line(error, kind, tree, path, prefix)) from error


def _one_line(
    error: ValidationError, kind: type[Config], tree: yaml.Node, path: Path, prefix: str
) -> str:
    # A mistyped key also leaves the right one missing: the typing mistake is the one to name.
    problem = min(error.errors(), key=lambda p: p["type"] != "extra_forbidden")
    keys = (*([prefix] if prefix else []), *problem["loc"])
    line, known = _locate(tree, keys)
    dotted = ".".join(str(key) for key in known)
    if problem["type"] == "extra_forbidden":
        rule = f"unknown key{_known_keys(kind, problem['loc'])}"
    elif problem["type"] == "missing":
        rule = "this key is needed"
        dotted = ".".join(
            [*(str(k) for k in known), *([str(keys[-1])] if keys[-1] not in known else [])]
        )
    else:
        rule = problem["msg"].removeprefix("Value error, ")
        given = problem.get("input")
        if isinstance(given, str | int | float | bool):
            rule += f", but it is {given!r}"
    return f"{path}:{line}: {dotted}: {rule}"


def _locate(tree: yaml.Node, keys: tuple[Any, ...]) -> tuple[int, list[Any]]:
    """The line of the deepest key that stands in the YAML, and the keys down to it."""
    node, line, known = tree, tree.start_mark.line + 1, []
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if entry is None:
                continue
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            continue
        known.append(key)
    return line, known


def _known_keys(kind: type[Config], location: tuple[Any, ...]) -> str:
    model: Any = kind
    for key in location[:-1]:
        field = getattr(model, "model_fields", {}).get(str(key))
        if field is None:
            return ""
        model = field.annotation
    fields = getattr(model, "model_fields", {})
    return f"; known here: {', '.join(fields)}" if fields else ""
