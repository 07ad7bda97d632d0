"""Workers without torch: where nothing is trained, 64 of them would fill the memory for nothing."""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LEFT_OUT = ("torch", "torchvision", "timm", "safetensors", "sklearn")


class _Everything(type):
    def __getattr__(cls, name: str) -> type:
        return Absent


class Absent(metaclass=_Everything):
    """Stands for every class and function of a library that was left out."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __class_getitem__(cls, _: Any) -> type:
        return cls

    def __call__(self, function: Any) -> Any:
        return function  # as a decorator


class _Module(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        left_out = name.partition(".")[0] in LEFT_OUT
        return ModuleSpec(name, self, is_package=True) if left_out else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def leave_out() -> None:
    """Import what is left out as empty modules from now on, in this process."""
    sys.meta_path.insert(0, _Finder())
