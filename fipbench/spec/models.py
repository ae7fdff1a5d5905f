"""A network, how it is trained, and what a method may spend."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from fipbench.spec.base import Fraction, Positive, PositiveFloat, Spec

# What a task may name. Their homes (`fipbench.models`, `fipbench.training`) need torch, this does not.
MODELS = (
    "bert",
    "clip",
    "cnn",
    "masked-lm",
    "mlp",
    "preresnet",
    "resnet",
    "transformer",
    "vgg",
    "vgg11",
    "vgg16",
    "vit",
)
OPTIMIZERS = ("sgd", "adam", "adamw")


class Model(Spec, frozen=True, kw_only=True):
    """An architecture of `fipbench.models` by name, its inputs' shape and number of outputs.

    `channels`: of convolutions. A language model has `vocabulary` words (the most frequent of the training texts),
    `depth` layers of `width` with `heads` heads, and reads `inputs[0]` tokens; longer texts are an error unless
    `truncate` is true. A pretrained one has its `weights` from that hub repository at that `revision`; `sha256` is
    the digest of the file of weights. Inputs in [0, 1] are normalised by `mean` and `std`, one number or one for each
    channel of images. A vision transformer cuts images of `pixels` by `pixels` into patches of `patch`;
    `tower` is the name of an open_clip model.

    `precision`: `bfloat16` computes the network's layers in it, as autocast does; weights, outputs and losses stay in
    float32. `checkpoint`: a transformer's layers are computed again in the backward pass in place of being kept.
    `microbatch`: the network is computed for so many examples at a time, whatever the batch; see
    `fipbench.models.compute`.
    """

    name: str
    inputs: tuple[Positive, ...]
    outputs: Positive
    hidden: tuple[Positive, ...] = ()
    mean: float | tuple[float, ...] = 0.0
    std: PositiveFloat | tuple[PositiveFloat, ...] = 1.0
    channels: tuple[Positive, ...] | UnsetType = UNSET
    vocabulary: Positive | UnsetType = UNSET
    width: Positive | UnsetType = UNSET
    depth: Positive | UnsetType = UNSET
    heads: Positive | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET
    weights: str | UnsetType = UNSET
    revision: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    pixels: Positive | UnsetType = UNSET
    patch: Positive | UnsetType = UNSET
    tower: str | UnsetType = UNSET
    precision: Literal["float32", "bfloat16"] | UnsetType = UNSET
    checkpoint: bool | UnsetType = UNSET
    microbatch: Positive | UnsetType = UNSET


class Recipe(Spec, frozen=True, kw_only=True):
    """How the shared base network is trained; with 0 `epochs` it is the pretrained network as it is.

    `snapshots`: epochs at which weights are kept for rewinding.

    `clip`: gradients are scaled to at most this norm. `decay`: after these fractions of the steps the learning rate
    falls to a tenth. Both here and wherever a method trains by `trial.fit` (`decay` unless it brings a schedule).
    """

    epochs: Annotated[int, Meta(ge=0)]
    batch_size: Positive
    optimizer: str = "sgd"
    learning_rate: PositiveFloat
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    snapshots: tuple[Annotated[int, Meta(ge=0)], ...] = (0,)
    clip: PositiveFloat | UnsetType = UNSET
    decay: tuple[Annotated[float, Meta(gt=0, lt=1)], ...] | UnsetType = UNSET


class Budget(Spec, frozen=True, kw_only=True):
    """What a method may spend, base network included, in epochs of training examples forward and backward.

    `factor`: the cap, as a multiple of those epochs, where methods may spend more than plain training does.
    """

    epochs: Positive
    batch_size: Positive
    factor: Annotated[float, Meta(ge=1)] | UnsetType = UNSET
