"""Classifiers: a trunk (a timm backbone or one of our own) under a small head."""

from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models import PretrainedCfg
from timm.models.vgg import VGG
from torch import nn
from torch.func import functional_call

from search.config import WeightsConfig
from search.data.transforms import Preprocessing, normalise
from search.errors import ConfigError
from search.params import Params
from search.training.pretrained import folder_file, hub_file, load_trunk, timm_cfg

OWN = ("cnn", "cnn_batchnorm")
# fmt: off
LISTED = (
    "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_100", "mobilenetv3_small_100",
    "mobilenetv3_large_100", "efficientnet_b0", "resnet18", "resnet50", "vgg16", "densenet121",
    "convnext_atto", "vit_tiny_patch16_224",
)
# fmt: on
GRID = 4  # cells a side into which our own CNNs pool before they flatten


class Classifier(nn.Module):
    """A trunk and a head, with the normalisation inside: it takes the pixels of `prepare`."""

    def __init__(self, trunk: nn.Module, head: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.trunk = trunk
        self.head = head
        self._still: list[nn.Module] = []  # frozen layers, whose statistics must not move either

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (n, size, size, 3) -> float32 (n, 3, size, size)."""
        return normalise(images, self.preprocessing)

    def features(self, normalised: torch.Tensor) -> torch.Tensor:
        """float32 (n, 3, size, size) -> (n, d), what the head sees."""
        return cast(torch.Tensor, self.trunk(normalised))

    def classify(self, normalised: torch.Tensor) -> torch.Tensor:
        """float32 (n, 3, size, size) -> logits (n, n_classes)."""
        return cast(torch.Tensor, self.head(self.features(normalised)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (n, size, size, 3) -> logits (n, n_classes)."""
        return self.classify(self.normalise(images))

    def train(self, mode: bool = True) -> "Classifier":
        """As `nn.Module.train`, but frozen layers stay in evaluation mode."""
        super().train(mode)
        for layer in self._still:
            layer.training = False
        return self


def allowed_backbones(weights: WeightsConfig) -> tuple[str, ...]:
    """The names a trial may ask for: ours, the built-in list, and those the config allows.

    Raises:
        ConfigError: if timm does not know an allowed name.
    """
    for name in set(weights.allow) - set(OWN):
        timm_cfg(name)
    return tuple(dict.fromkeys((*OWN, *LISTED, *weights.allow)))


def preprocessing_of(params: Params) -> Preprocessing:
    """What a trial does to its images; mean and std are the backbone's.

    For our own CNNs they are ImageNet's, timm's default.

    Raises:
        ConfigError: if timm does not know the backbone.
    """
    cfg = PretrainedCfg() if params.backbone in OWN else timm_cfg(params.backbone)
    pixels = params.model_dump(include={"grayscale", "colour_constancy"})
    return Preprocessing(size=params.image_size, mean=cfg.mean, std=cfg.std, **pixels)


def build_classifier(
    params: Params, n_classes: int, weights: WeightsConfig, *, seed: int | None = None
) -> Classifier:
    """Build a trial's classifier, pretrained where its params ask for it, everything trainable.

    Our own CNNs have no pretrained weights: they start at random whatever `params.weights` says.

    Args:
        seed: of the random weights; the global random state stays as it was.

    Raises:
        ConfigError: for a backbone that is not allowed or cannot take the image size.
        TrainingError: if the pretrained weights are not at hand or do not fit.
    """
    if params.backbone not in (allowed := allowed_backbones(weights)):
        raise ConfigError(
            f"backbone {params.backbone!r} is not allowed; allowed are {', '.join(allowed)}; "
            "name it under weights.allow if timm has it"
        )
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        trunk = _own_trunk(params) if params.backbone in OWN else _timm_trunk(params, weights)
        head = _head(_width(trunk, params), params, n_classes)
    return Classifier(trunk, head, preprocessing_of(params)).train()


def restore_classifier(
    params: Params, n_classes: int, state: Mapping[str, torch.Tensor]
) -> Classifier:
    """A trained classifier from its weights, in evaluation mode.

    Args:
        state: every tensor of the classifier, as its `state_dict` gave them.
    """
    allow = WeightsConfig(allow=[] if params.backbone in OWN else [params.backbone])
    bare = params.model_copy(update={"weights": "none"})
    classifier = build_classifier(bare, n_classes, allow)
    classifier.load_state_dict(dict(state))
    return classifier.eval()


def freeze(classifier: Classifier, unfreeze: float, *, keep_statistics: bool = False) -> int:
    """Let only the head and the last share of the trunk's depth train.

    Depth counts the trunk's layers that hold parameters or statistics, in the order they are
    defined in. Frozen BatchNorm keeps its statistics.

    Args:
        unfreeze: 0 freezes the whole trunk, its dropout too; above 0 at least one layer trains.
        keep_statistics: BatchNorm that trains keeps its statistics as well.

    Returns:
        The number of trainable parameters.
    """
    trunk = classifier.trunk
    layers = [m for m in trunk.modules() if [*m.parameters(False), *m.buffers(False)]]
    n_trained = max(round(unfreeze * len(layers)), 1) if unfreeze else 0
    frozen = layers[: len(layers) - n_trained]
    classifier.requires_grad_(True)
    for layer in frozen:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
    norms = [m for m in layers if keep_statistics and list(m.buffers(False))]
    classifier._still = [*frozen, *norms] if n_trained else list(trunk.modules())
    classifier.train(classifier.training)
    return sum(p.numel() for p in classifier.parameters() if p.requires_grad)


def _own_trunk(params: Params) -> nn.Module:
    """Three convolutions, pooled to at most 4 x 4 cells: the width depends on no image size."""
    normed = params.backbone == "cnn_batchnorm"
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 32), (32, 64), (64, 128)):
        norm, drop = ([nn.BatchNorm2d(n_out)], [nn.Dropout(0.25)]) if normed else ([], [])
        convolution = nn.Conv2d(n_in, n_out, 3, padding=1, bias=not normed)
        layers += [convolution, *norm, nn.ReLU(), nn.MaxPool2d(2), *drop]
    cells = min(GRID, params.image_size // 8)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(cells), nn.Flatten())


def _timm_trunk(params: Params, weights: WeightsConfig) -> Any:
    name = params.backbone
    trunk: Any = timm.create_model(name, pretrained=False, num_classes=0)
    if isinstance(trunk, VGG):
        # Its two 4096-wide layers hold 120 of 134 million parameters and want 224 pixels.
        cast(Any, trunk).pre_logits = nn.Identity()
    cfg = timm_cfg(name)
    if params.weights == "folder":
        load_trunk(trunk, folder_file(name, weights), cfg)
    if params.weights == "hub":
        load_trunk(trunk, hub_file(name, cfg), cfg)
    if cfg.fixed_input_size and params.image_size != cfg.input_size[-1]:
        _resize_input(trunk, params)
    return trunk


def _resize_input(trunk: Any, params: Params) -> None:
    """Give a transformer another image size; timm resamples its position embedding."""
    if not hasattr(trunk, "set_input_size"):
        raise _unfit_size(params, "it has one fixed size")
    if params.image_size % (patch := trunk.patch_embed.patch_size[0]):
        raise _unfit_size(params, f"it takes multiples of {patch}")
    trunk.set_input_size(img_size=(params.image_size, params.image_size))


def _width(trunk: nn.Module, params: Params) -> int:
    """Features of the trunk, by a pass without data (on torch's meta device)."""
    state = dict(trunk.named_parameters()) | dict(trunk.named_buffers())
    shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    image = torch.empty(1, 3, params.image_size, params.image_size, device="meta")
    try:
        features = functional_call(trunk.eval(), shapes, (image,))
    except (RuntimeError, AssertionError) as error:
        raise _unfit_size(params, "it is too small for it") from error
    return int(features.shape[1])


def _head(width: int, params: Params, n_classes: int) -> nn.Sequential:
    hidden = [nn.Linear(width, params.hidden), nn.ReLU()] if params.hidden else []
    output = nn.Linear(params.hidden or width, n_classes)
    return nn.Sequential(*hidden, nn.Dropout(params.dropout), output)


def _unfit_size(params: Params, rule: str) -> ConfigError:
    size = params.image_size
    return ConfigError(f"{params.backbone} cannot take image_size {size}: {rule}; choose another")
