"""The params of one trial: every value that training depends on, checked."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of every config: no unknown keys, no later change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Augmentation(Config):
    """Strengths of the training transforms; 0 switches one off."""

    rotation: float = Field(0, ge=0, le=180, description="degrees, either way")
    flip_horizontal: Share = Field(0, description="probability")
    flip_vertical: Share = Field(0, description="probability")
    zoom: float = Field(0, ge=0, lt=1, description="scale changes by at most this share")
    shift: float = Field(0, ge=0, lt=1, description="share of the side")
    shear: float = Field(0, ge=0, le=45, description="degrees, either way")
    brightness: Share = 0
    contrast: Share = 0
    saturation: Share = 0
    hue: float = Field(0, ge=0, le=0.5, description="share of the colour circle")
    blur: Share = Field(0, description="probability")
    noise: Share = Field(0, description="probability")
    dropout: Share = Field(0, description="probability of coarse dropout")
    hair: Share = Field(0, description="probability of drawn hairs")
    vignette: Share = Field(0, description="probability of a dark round border")


class Params(Config):
    """One trial. A search space samples some of these; the rest keep their defaults."""

    backbone: str = Field("mobilenetv2_100", description="a timm name or one of our own")
    weights: Literal["none", "hub", "folder"] = Field("none", description="pretrained weights")
    unfreeze: Share = Field(
        1, description="share of the backbone's depth that trains: 0 frozen, 1 all of it"
    )
    keep_statistics: bool = Field(False, description="of the backbone's BatchNorm, as pretrained")
    hidden: int = Field(0, ge=0, le=8192, description="units of a dense layer; 0 leaves it out")
    dropout: float = Field(0.2, ge=0, lt=1, description="before the output layer")

    image_size: int = Field(128, ge=16, le=1024, description="pixels of the square input")
    grayscale: bool = Field(False, description="luminance only, as 28-pixel systems do")
    colour_constancy: bool = Field(False, description="shades-of-gray white balance")

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_epochs: float = Field(0, ge=0, le=100)
    batch_size: int = Field(32, ge=2, le=4096)
    loss: Literal["cross_entropy", "bce", "focal"] = "cross_entropy"
    focal_gamma: float = Field(2, ge=0, le=10)
    label_smoothing: float = Field(0, ge=0, lt=1)
    balance: Literal["none", "class_weights", "sampler"] = "none"
    mixup: float = Field(0, ge=0, le=5, description="alpha of the Beta law; 0 is off")
    cutmix: float = Field(0, ge=0, le=5, description="alpha of the Beta law; 0 is off")
    ema: float = Field(0, ge=0, lt=1, description="decay of averaged weights; 0 is off")
    clip_norm: float = Field(0, ge=0, description="limit of the gradient's norm; 0 is off")
    mixed_precision: bool = Field(True, description="where the device has it")

    augment: Augmentation = Augmentation()
