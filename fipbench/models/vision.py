"""Vision transformers, pretrained or at random: transformers' ViT, and the image tower of an open_clip model.

Both read images of any size and resize them to what they were trained on. Weights are read from safetensors only, from
the hub or a local mirror of it (`FIPBENCH_MODELS`), like those of language models.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.models import Normalize
from fipbench.models.pretrained import first_line, silence, weights_folder, weights_name
from fipbench.spec import Model


class Resized(nn.Module):
    """Inputs in [0, 1] resized (bicubic) to `pixels` by `pixels` and normalised; then the network."""

    def __init__(self, network: nn.Module, pixels: int, normalize: Normalize) -> None:
        super().__init__()
        self.network = network
        self.pixels, self.normalize = pixels, normalize

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) to what the network gives."""
        if x.shape[-2:] != (self.pixels, self.pixels):
            x = nn.functional.interpolate(x, size=(self.pixels, self.pixels), mode="bicubic", align_corners=False)
        found = self.network(self.normalize(x))
        return found if isinstance(found, Tensor) else found.logits


class WithHead(nn.Module):
    """A linear layer on an image tower's embedding."""

    def __init__(self, tower: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.tower = tower
        self.classifier = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, pixels, pixels) to logits (n, outputs)."""
        return self.classifier(self.tower(x))


def vision_transformer(spec: Model) -> nn.Module:
    """ViT (Dosovitskiy et al., 2021) by transformers: `depth` layers of `width` with `heads` heads on patches of
    `patch` pixels of an image of `pixels`, feed-forward layers four times as wide, and a new classification layer.

    ViT-B/16 is 12 layers of 768 with 12 heads, ViT-H/14 is 32 of 1280 with 16. There is no dropout.

    Raises:
        UserError: a field is missing, or the weights are not there, not safetensors, or of another architecture.
    """
    import_torchvision()
    from transformers import AutoConfig, ViTConfig, ViTForImageClassification

    sizes = {
        "image_size": _given("pixels", spec.pixels),
        "patch_size": _given("patch", spec.patch),
        "hidden_size": _given("width", spec.width),
        "num_hidden_layers": _given("depth", spec.depth),
        "num_attention_heads": _given("heads", spec.heads),
        "num_channels": spec.inputs[0],
    }
    silence()
    more: dict[str, Any] = {"intermediate_size": 4 * sizes["hidden_size"], "num_labels": spec.outputs}
    config: Any = ViTConfig(**sizes, **more)
    if not spec.weights:
        return Resized(ViTForImageClassification(config), sizes["image_size"], Normalize(spec.mean, spec.std))
    folder = weights_folder(spec)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        other = [f"{k} {getattr(config, k, None)}" for k, v in sizes.items() if getattr(config, k, None) != v]
        if other:
            raise UserError(f"{folder}: is of another architecture than the task's model ({', '.join(other)})")
        config.num_labels = spec.outputs
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        network = ViTForImageClassification.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # the old classification layer, if there is one
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder}: no network can be made of it ({first_line(error)})") from None
    return Resized(network, sizes["image_size"], Normalize(spec.mean, spec.std))


def clip_tower(spec: Model) -> nn.Module:
    """The image tower of the open_clip model `tower` (such as ViT-B-16 or ViT-H-14) with a classification layer on its
    embedding (Ilharco et al., OpenCLIP, 2021).

    Raises:
        UserError: open_clip has no such model, or its weights are not there or of another architecture.
    """
    import_torchvision()
    import open_clip

    name = _given("tower", spec.tower)
    if name not in open_clip.list_models():
        near = [known for known in open_clip.list_models() if known.lower().startswith(name.lower()[:5])]
        raise UserError(f"field 'model.tower': open_clip has no '{name}'; it has {', '.join(near[:5]) or 'others'}")
    network = open_clip.create_model(name, pretrained=None, load_weights=False)
    if spec.weights:
        _load_tower(network.visual, spec)
    pixels = network.visual.image_size
    pixels = pixels[0] if isinstance(pixels, tuple | list) else pixels
    return Resized(
        WithHead(network.visual, network.visual.output_dim, spec.outputs), pixels, Normalize(spec.mean, spec.std)
    )


def _load_tower(tower: nn.Module, spec: Model) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = weights_folder(spec) / weights_name(spec)
    try:
        found = {k.removeprefix("visual."): v for k, v in load_file(file).items() if k.startswith("visual.")}
        tower.load_state_dict(found)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(f"{file}: is no image tower of '{spec.tower}' ({first_line(error)})") from None


def _given(field: str, value: Any) -> Any:
    if value is None or value == "" or not isinstance(value, int | str):
        raise UserError(f"field 'model.{field}': a vision transformer needs it; set it")
    return value
