"""Pretrained weights: from a folder or the hub into a timm backbone, safetensors only."""

import importlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg, get_pretrained_cfg
from timm.models.vgg import VGG
from torch import nn

from search.config import WeightsConfig
from search.errors import ConfigError, TrainingError


def timm_cfg(name: str) -> PretrainedCfg:
    """What timm knows of a backbone.

    Raises:
        ConfigError: it does not know it.
    """
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError:  # a known architecture with an unknown tag
        cfg = None
    if cfg is None:
        raise ConfigError(f"timm has no backbone {name!r}; timm.list_models() has the names")
    return cfg


def folder_file(name: str, weights: WeightsConfig) -> Path:
    """A backbone's file in the config's folder.

    Raises:
        ConfigError: no folder is named.
        TrainingError: the file is not there.
    """
    if weights.folder is None:
        raise ConfigError("a trial asks for weights: folder; name the folder under weights.folder")
    file = weights.folder / f"{name}.safetensors"
    if not file.is_file():
        raise TrainingError(f"{file} is missing; put timm's weights there or use weights: none")
    return file


def hub_file(name: str, cfg: PretrainedCfg) -> Path:
    """The hub's safetensors, by its own client: timm might fall back to a pickle.

    Raises:
        TrainingError: the hub has none, or cannot be reached.
    """
    remedy = f"put {name}.safetensors in the folder of weights.folder and use weights: folder"
    if not cfg.hf_hub_id:
        raise TrainingError(f"the hub has no weights for {name}; use weights: none, or {remedy}")
    try:
        hub = importlib.import_module("huggingface_hub")
        return Path(hub.hf_hub_download(cfg.hf_hub_id, "model.safetensors"))
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TrainingError(f"no weights for {name} from the hub ({reason}); {remedy}") from error


def load_trunk(trunk: nn.Module, file: Path, cfg: PretrainedCfg) -> None:
    """Load every weight of the trunk; the file's classifier is left out.

    Raises:
        TrainingError: the file is damaged, or another backbone's.
    """
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{file}: not a safetensors file ({error}); replace it") from error
    heads = [cfg.classifier] if isinstance(cfg.classifier, str) else list(cfg.classifier or ())
    prefixes = tuple(f"{head}." for head in [*heads, *(["pre_logits"] * isinstance(trunk, VGG))])
    given = {key: value for key, value in found.items() if not key.startswith(prefixes)}
    has = {key: tuple(value.shape) for key, value in given.items()}
    wants = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    if unfit := [key for key in wants | has if has.get(key) != wants.get(key)]:
        raise TrainingError(
            f"{file}: {unfit[0]} is {has.get(unfit[0], 'missing')}, where timm's backbone has "
            f"{wants.get(unfit[0], 'nothing')}; replace it by timm's own weights"
        )
    trunk.load_state_dict(given)
