"""The query of a request as options."""

from typing import Any
from urllib.parse import parse_qsl

from serving.problems import ProblemError
from serving.scoring.options import Options

LONGEST = 100  # characters of a name
FLAGS = {"true": True, "1": True, "false": False, "0": False}
KNOWN = ("operating_point", "prevalence", "members", "explain", "cascade")


def read_options(query: bytes) -> Options:
    """Options of POST /v1/predict.

    A name that is not known is refused: a misspelt operating point must not decide by another.

    Raises:
        ProblemError: 422, naming the parameter.
    """
    if not query:
        return Options()
    found: dict[str, Any] = {}
    prevalence: dict[str, float] = {}
    for name, value in _pairs(query):
        if name not in KNOWN:
            raise _invalid(name, f"is not known here; there are {', '.join(KNOWN)}")
        if name == "prevalence":
            cls, _, share = value.rpartition(":")
            if cls in prevalence:
                raise _invalid(name, f"{cls[:LONGEST]} is given twice")
            prevalence[cls] = _share(share)
        elif name in found:
            raise _invalid(name, "is given twice")
        else:
            found[name] = _name(value) if name == "operating_point" else _flag(name, value)
    return Options(**found, prevalence=prevalence)


def read_class(query: bytes) -> str | None:
    """The class that POST /v1/explain asks about; None where it names none.

    Raises:
        ProblemError: 422, naming the parameter.
    """
    name = None
    for key, value in _pairs(query):
        if key != "class":
            raise _invalid(key, "is not known here; there is class")
        if name is not None:
            raise _invalid(key, "is given twice")
        name = _name(value, "class")
    return name


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=50, errors="strict"
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise ProblemError(422, "invalid_parameter", "the query cannot be read") from error


def _name(value: str, name: str = "operating_point") -> str:
    if not 0 < len(value) <= LONGEST:
        raise _invalid(name, f"must have 1 to {LONGEST} characters")
    return value


def _flag(name: str, value: str) -> bool:
    if value not in FLAGS:
        raise _invalid(name, "must be true or false")
    return FLAGS[value]


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise _invalid("prevalence", "must be CLASS:SHARE with a share of 0 to 1")
    return share


def _invalid(name: str, rule: str) -> ProblemError:
    return ProblemError(422, "invalid_parameter", f"{name[:LONGEST]}: {rule}")
