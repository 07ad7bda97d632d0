"""A YAML file as a checked document: errors name the file, the line and the key."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails

from search.errors import ConfigError
from search.params import Config

C = TypeVar("C", bound=Config)


def read_document(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    """The YAML mapping in a file, and its syntax tree for line numbers."""
    document, tree = read_yaml(path, "an experiment's YAML file")
    if not isinstance(document, Mapping) or tree is None:
        raise ConfigError(f"{path}: a mapping of keys is expected; see configs/ for examples")
    return dict(document), tree


def read_yaml(path: Path, wanted: str) -> tuple[Any, yaml.Node | None]:
    """What a YAML file holds, and its syntax tree; errors ask for what is `wanted`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ConfigError(f"{path}: {reason.lower()}; name {wanted}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; name {wanted}") from error
    try:
        return yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from error


def line_of(tree: yaml.Node, *keys: str | int) -> int:
    """The line, from 1, of the deepest of nested keys that stands in the YAML."""
    return _locate(tree, keys)[0]


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


def located(error: ValueError, *keys: str | int) -> ValidationError:
    """A model's error as one of a key in it: raised by its validator, it gets that key's line."""
    details = InitErrorDetails(type="value_error", loc=keys, input=None, ctx={"error": error})
    return ValidationError.from_exception_data("config", [details])


def _one_line(
    error: ValidationError, kind: type[Config], tree: yaml.Node, path: Path, prefix: str
) -> str:
    start = (prefix,) if prefix else ()
    problem, *others = _foremost(error, tree, start)
    line, known = _locate(tree, (*start, *problem["loc"]))
    last = problem["loc"][-1:]
    if problem["type"] == "missing" and last != tuple(known[-1:]):
        known = [*known, *last]
    dotted = ".".join(str(key) for key in known)
    if problem["type"] == "extra_forbidden":
        rule = f"unknown key{_known_keys(kind, problem['loc'])}"
    elif problem["type"] == "missing":
        rule = "this key is needed"
    elif problem["type"] == "literal_error":
        rule = _unknown(known, [problem, *(o for o in others if o["type"] == problem["type"])])
    else:
        rule = problem["msg"].removeprefix("Value error, ")
        given = problem.get("input")
        if isinstance(given, str | int | float | bool):
            rule += f", but it is {given!r}"
    return f"{path}:{line}: {dotted}: {rule}"


def _foremost(
    error: ValidationError, tree: yaml.Node, start: tuple[str, ...]
) -> list[ErrorDetails]:
    """The problems of the one place to name; a union has a problem for each of its branches."""
    # A mistyped key also leaves the right one missing: the typing mistake is the one to name.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    known = [_locate(tree, (*start, *problem["loc"]))[1] for problem in problems]
    # The branch that got furthest down is the one that was meant.
    furthest = max((keys for keys in known if keys[: len(known[0])] == known[0]), key=len)
    return [problem for problem, keys in zip(problems, known, strict=True) if keys == furthest]


def _unknown(known: list[Any], problems: list[ErrorDetails]) -> str:
    """Of a value, or a key, that is none of several names."""
    expected = " ".join(problem["ctx"]["expected"] for problem in problems)
    names = ", ".join(re.findall(r"'([^']*)'", expected))
    if problems[0]["loc"][-1] == "[key]":
        return f"unknown key; known here: {names}"
    what = [key for key in known if isinstance(key, str)][-1]
    return f"unknown {what} {problems[0]['input']!r}; known are {names}"


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
