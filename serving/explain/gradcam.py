"""Grad-CAM: where in its image one network sees a class.

Sources: Selvaraju et al., "Grad-CAM", ICCV 2017. For heads that see positions: Draelos & Carin,
"Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", 2020.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from numpy.typing import NDArray
from timm.models import Beit, Eva, VisionTransformer
from torch import nn
from torch.func import functional_call

from search.errors import BundleError, ServingError
from search.training.backbones import Classifier

Floats = NDArray[np.float32]
TRANSFORMERS = (VisionTransformer, Eva, Beit)  # of one grid of tokens; timm's others derive from it


class TokenGrid(nn.Module):
    """Shows tokens, (n, prefix + h w, d), as a map on their way through and changes nothing."""

    def __init__(self, n_prefix: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.n_prefix = n_prefix  # class and register tokens lie nowhere in the image
        self.grid = grid
        self.map = nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        prefix, patches = tokens[:, : self.n_prefix], tokens[:, self.n_prefix :]
        shown = self.map(patches.transpose(1, 2).reshape(len(tokens), -1, *self.grid))
        return torch.cat([prefix, shown.flatten(2).transpose(1, 2)], dim=1)


class ChannelsFirst(nn.Module):
    """Shows (n, h, w, d) as a map on its way through and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        shown: torch.Tensor = self.map(features.permute(0, 3, 1, 2))
        return shown.permute(0, 2, 3, 1)


def explain_network(classifier: Classifier, pixels: NDArray[np.uint8], class_index: int) -> Floats:
    """Where an image speaks for a class, as one network sees it.

    What is explained is the logit of the class's probability (see `log_odds`), not the probability:
    that one's gradient fades to rounding errors where the network is sure.

    One call at a time on one classifier, since its layers are watched by hooks meanwhile. Gradients
    of its weights and torch's global state stay as they were.

    Args:
        classifier: in evaluation mode.
        pixels: as `prepare` gives them for this network, (size, size, 3).
        class_index: of the class to explain.

    Returns:
        (h, w) in the resolution of the layer looked into, divided by its maximum: 0 where nothing
        speaks for the class, 1 where most does. All zeros where nothing in the image does.

    Raises:
        ServingError: the network keeps no map of its image.
        BundleError: it gives what is no number.
    """
    device = next(classifier.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(pixels)[None]).to(device)
    with torch.inference_mode(False), torch.enable_grad():
        # The image asks for gradients, so that frozen weights do not cut the way to the layer.
        normalised = classifier.normalise(image).requires_grad_()
        evidence = _attribute(classifier, normalised, class_index)
    heat: Floats = torch.relu(evidence[0]).float().cpu().numpy()
    if not np.isfinite(heat).all():
        raise BundleError(
            "a network's gradient is NaN; check the version of torch, or build the bundle again"
        )
    peak = heat.max()
    return heat / peak if peak > 0 else heat


def _attribute(classifier: Classifier, normalised: torch.Tensor, class_index: int) -> torch.Tensor:
    """Channels of the layer looked into, summed by their gradients: (1, h, w)."""
    layer, window = find_layer(classifier, normalised.shape[-1])

    def odds(given: torch.Tensor) -> torch.Tensor:
        return log_odds(classifier.classify(given), class_index)

    # Our own CNNs flatten a grid: their head weighs one channel differently from place to place.
    # Grad-CAM's mean gradient would mark places that the head ignores; the gradient of each place
    # does not, and is the same thing wherever the head sees the mean over all places.
    positional = isinstance(classifier.trunk, nn.Sequential)
    method = LayerGradientXActivation if positional else LayerGradCam
    with ExitStack() as hooks:
        if window is not None:
            hooks.callback(layer.register_forward_hook(_through(window)).remove)
            layer = window.map
        attributed = method(odds, layer).attribute(normalised)
    summed: torch.Tensor = attributed.detach().sum(dim=1)
    return summed


def log_odds(logits: torch.Tensor, class_index: int) -> torch.Tensor:
    """log p / (1 - p) of one class, (n,), from logits (n, n_classes).

    One output alone will not do: training fixes the outputs only up to what they have in common,
    and that may depend on the image. Of eight small transformers trained to find a disc, the map
    of one output marked it in two, that of the odds in seven.
    """
    others = [index for index in range(logits.shape[1]) if index != class_index]
    return logits[:, class_index] - torch.logsumexp(logits[:, others], dim=1)


def _through(window: nn.Module) -> Callable[..., torch.Tensor]:
    """A hook that sends a layer's output through a window."""
    return lambda _layer, _given, output: window(output)


def find_layer(
    classifier: Classifier, size: int
) -> tuple[nn.Module, TokenGrid | ChannelsFirst | None]:
    """The layer to look into, and how to see its output as a map, (n, channels, h, w).

    Of a transformer it is the first normalisation of the last block: behind that attention, only
    what went into the class token counts. Of all else it is what gives the last map that is not
    pooled yet: larger than one cell, and no pooling to a grid.

    Args:
        size: of the image, pixels.

    Raises:
        ServingError: there is none.
    """
    trunk = classifier.trunk
    if isinstance(trunk, TRANSFORMERS):
        window = TokenGrid(trunk.num_prefix_tokens, tuple(trunk.patch_embed.grid_size))
        return cast(Any, trunk).blocks[-1].norm1, window
    # timm marks with this the trunks (Swin and its kin) whose maps have their channels last.
    channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
    layer = _last_map(trunk, size, channels_last=channels_last)
    if layer is None:
        raise ServingError(
            f"a {type(trunk).__name__} keeps no map of its image that Grad-CAM could show; "
            "ask without an explanation"
        )
    return layer, ChannelsFirst() if channels_last else None


def _last_map(trunk: nn.Module, size: int, *, channels_last: bool) -> nn.Module | None:
    """The module that finishes last with a map of more than one cell."""
    sides = slice(1, 3) if channels_last else slice(2, 4)
    found: list[nn.Module] = []

    def watch(module: nn.Module, _given: object, output: object) -> None:
        if isinstance(module, nn.AdaptiveAvgPool2d) or not isinstance(output, torch.Tensor):
            return
        if output.ndim == 4 and output.shape[sides].numel() > 1:
            found[:] = [module]
        if output.ndim == 3:  # tokens of a kind not known here: the map before them says little
            found.clear()

    with ExitStack() as hooks, torch.no_grad():
        for module in trunk.modules():
            hooks.callback(module.register_forward_hook(watch).remove)
        # Only shapes are wanted: on torch's meta device they cost no arithmetic.
        state = dict(trunk.named_parameters()) | dict(trunk.named_buffers())
        shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
        functional_call(trunk, shapes, (torch.empty(1, 3, size, size, device="meta"),))
    return found[0] if found else None
