"""Members by torch from their canonical weights: the engine of GPUs, and what explains them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from ensemble.bundle import Bundle
from ensemble.manifest import Member, Network
from search.errors import BundleError
from search.training.backbones import Classifier, restore_classifier

Floats = NDArray[np.float32]


def load_classifier(bundle: Bundle, member: Member, network: int = 0) -> Classifier:
    """A member's network as a torch module in evaluation mode, from its safetensors.

    Raises:
        BundleError: the weights cannot be read, or are another classifier's.
    """
    path = bundle.folder / member.networks[network].weights_file
    try:
        state = load_file(path)
        return restore_classifier(member.params, len(bundle.manifest.classes), state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path}: cannot be loaded; build the bundle again") from error


def load_torch(
    bundle: Bundle, member: Member, network: Network, *, threads: int, device: str
) -> Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]:
    """A network as a function from pixels to probabilities and features.

    On a GPU the convolutions are computed in bfloat16, channels last; the softmax in float32.

    Raises:
        BundleError: the network cannot be loaded, or there is no such device.
    """
    torch.set_num_threads(threads)
    classifier = load_classifier(bundle, member, member.networks.index(network))
    try:
        classifier = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"torch has no device {device} here ({reason}); set gpus: 0") from error
    half = torch.device(device).type == "cuda"

    def outputs(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                features = classifier.features(classifier.normalise(given))
                logits = classifier.head(features)
            probs = torch.softmax(logits.float(), dim=1)
        return probs.cpu().numpy(), features.float().cpu().numpy()

    return outputs
