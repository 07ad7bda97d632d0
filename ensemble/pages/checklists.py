"""Which items of the reporting guidelines are answered, and where."""

from functools import cache
from importlib import resources
from typing import Self

import yaml
from pydantic import Field, model_validator

from search.params import Config

FILE = "checklists.yaml"


class Item(Config):
    """One item: answered in one place, or not, for a reason."""

    item: str
    title: str = Field(description="in our own words")
    where: str | None = None
    not_here: str | None = Field(None, alias="not")

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.where is None) == (self.not_here is None):
            raise ValueError(f"item {self.item} needs either where or not")
        return self

    @property
    def answer(self) -> str:
        """The place, or why there is none."""
        return self.where or f"not answered here: {self.not_here}"


class Checklist(Config):
    """A guideline's items, in its order."""

    title: str
    source: str
    items: list[Item]

    @property
    def answered(self) -> int:
        """How many items have a place."""
        return sum(item.where is not None for item in self.items)


@cache
def load_checklists() -> tuple[Checklist, ...]:
    """TRIPOD+AI and CLAIM, from the file beside this one."""
    text = resources.files("ensemble.pages").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(Checklist.model_validate(entry) for entry in yaml.safe_load(text).values())
