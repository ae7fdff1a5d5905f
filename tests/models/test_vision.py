"""Vision transformers against their sizes on paper and the libraries' own; VGG16 against torchvision's."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import nn

from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.models import build
from fipbench.models.pretrained import weights_digest
from fipbench.spec import Model

TINY = {"pixels": 16, "patch": 4, "width": 24, "depth": 2, "heads": 3}


def vit(**changes):
    return Model(**{"name": "vit", "inputs": (3, 8, 8), "outputs": 5, "mean": 0.5, "std": 0.5, **TINY, **changes})


def clip(**changes):
    return Model(**{"name": "clip", "inputs": (3, 8, 8), "outputs": 5, "tower": "ViT-B-32", **changes})


def on_paper(pixels, patch, width, depth, outputs):
    """Parameters of a ViT (Dosovitskiy et al., 2021, section 3): patches, token, positions, layers, norm, head."""
    tokens = (pixels // patch) ** 2 + 1
    layer = 4 * (width * width + width) + 2 * 4 * width * width + 5 * width + 4 * width
    return (3 * patch**2 + 1) * width + width + tokens * width + depth * layer + 2 * width + (width + 1) * outputs


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        (TINY, 0),
        ({"pixels": 224, "patch": 16, "width": 768, "depth": 12, "heads": 12}, 86),  # ViT-B/16
        ({"pixels": 224, "patch": 14, "width": 1280, "depth": 32, "heads": 16}, 632),  # ViT-H/14
    ],
)
def test_sizes_of_vision_transformers(sizes, millions):
    with torch.device("meta"):
        model = build(vit(**sizes), seed=0)
    found = sum(p.numel() for p in model.parameters())
    assert found == on_paper(**{k: v for k, v in sizes.items() if k != "heads"}, outputs=5)
    assert round(found / 1e6) in (millions, millions - 1)


def test_images_are_resized_and_normalised():
    model = build(vit(), seed=1).eval()
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(x, size=16, mode="bicubic")
    torch.testing.assert_close(model(x), model.network((large - 0.5) / 0.5).logits)
    torch.testing.assert_close(model(x), model(large))
    assert model(x).shape == (4, 5)


def test_there_is_no_dropout_and_the_seed_decides():
    model = build(vit(), seed=2).train()
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), model(x))
    assert torch.equal(model(x), build(vit(), seed=2)(x)) and not torch.equal(model(x), build(vit(), seed=3)(x))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A hub of one folder with a small ViT whose head has seven classes."""
    import_torchvision()
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(5)
    config = ViTConfig(
        image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96
    )
    config.num_labels = 7
    network = ViTForImageClassification(config)
    network.save_pretrained(tmp_path / "someone" / "tiny-vit")
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path))
    return network


def test_pretrained_weights_are_those_of_the_file_with_a_new_head(mirror):
    model = build(vit(weights="someone/tiny-vit"), seed=0)
    theirs = mirror.state_dict()
    for name, value in model.network.state_dict().items():
        if name.startswith("classifier"):
            assert value.shape[0] == 5
        else:
            assert torch.equal(value, theirs[name]), name


def test_another_architecture_is_refused(mirror):
    with pytest.raises(UserError, match=r"another architecture .*num_hidden_layers 2"):
        build(vit(weights="someone/tiny-vit", depth=3), seed=0)


def test_a_field_that_is_missing_is_named():
    with pytest.raises(UserError, match=r"field 'model.patch': a vision transformer needs it"):
        build(msgspec.structs.replace(vit(), patch=msgspec.UNSET), seed=0)


# ------------------------------------------------------------------------------------------------------- open_clip


def test_the_tower_is_open_clips_own(tmp_path, monkeypatch):
    import_torchvision()
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(3)
    theirs = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    folder = tmp_path / "someone" / "tower"
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, folder / "open_clip_model.safetensors")
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path))
    spec = clip(weights="someone/tower")
    model = build(spec, seed=0).eval()
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.network.classifier(theirs.encode_image(x)))
    assert len(weights_digest(spec)) == 64
    (folder / "open_clip_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is no image tower of 'ViT-B-32'"):
        build(spec, seed=0)


def test_an_unknown_tower_is_named():
    with pytest.raises(UserError, match=r"field 'model.tower': open_clip has no 'ViT-B-33'; it has ViT-B"):
        build(clip(tower="ViT-B-33"), seed=0)


# ------------------------------------------------------------------------------------------------------------ VGG16


def test_vgg16_is_torchvisions_with_smaller_dense_layers():
    torchvision = import_torchvision()
    spec = Model(name="vgg16", inputs=(3, 32, 32), channels=(64, 128, 256, 512, 512), hidden=(512, 512), outputs=10)
    ours, theirs = build(spec, seed=0).eval(), torchvision.models.vgg16().eval()
    pairs = zip(
        (m for m in theirs.features if isinstance(m, nn.Conv2d)),
        (m for m in ours if isinstance(m, nn.Conv2d)),
        strict=True,
    )
    for a, b in pairs:
        a.load_state_dict(b.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = theirs.features(x).flatten(1)
        torch.testing.assert_close(ours(x), ours[-5:](features), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in ours.parameters()) == 14_714_688 + 2 * (512 * 512 + 512) + 5130


def test_vgg16_needs_five_channels():
    with pytest.raises(UserError, match="vgg16 needs five"):
        build(Model(name="vgg16", inputs=(3, 32, 32), channels=(8, 16), outputs=10), seed=0)


# ---------------------------------------------------------------------------------------------- normalisation

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_channels_are_normalised_as_by_torchvision(name):
    torchvision = import_torchvision()
    own = TINY if name == "vit" else {"channels": (4,), "hidden": (8,)}
    plain, each = (
        build(Model(name=name, inputs=(3, 16, 16), outputs=5, **own, **given), seed=4).eval()
        for given in ({}, IMAGENET)
    )
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    wanted = torchvision.transforms.Normalize(*IMAGENET.values())(x)
    torch.testing.assert_close(each(x), plain(wanted))
    # They are no weights: what a network is stored as does not depend on how it is normalised.
    assert list(each.state_dict()) == list(plain.state_dict())


def test_a_number_for_each_channel_needs_channels(tmp_path):
    from workbench import write_tiny

    from fipbench import registry

    def read(model):
        return registry.read_task(str(write_tiny(tmp_path, model=f"{{ {model}, outputs = 10 }}"))).model

    assert read('name = "cnn", inputs = [3, 8, 8], channels = [4], mean = [0.1, 0.2, 0]').mean == (0.1, 0.2, 0.0)
    for model, words in (
        ('name = "mlp", inputs = [3, 8, 8], mean = [0.1, 0.2, 0.3]', "field 'model.mean': expected one number; 'mlp'"),
        (
            'name = "cnn", inputs = [1, 8, 8], std = [0.1, 0.2]',
            "field 'model.std': expected a number, or one for each of 1",
        ),
        ('name = "cnn", inputs = [2, 8, 8], std = [0.1, 0]', "field 'model.std"),
    ):
        with pytest.raises(UserError) as caught:
            read(model)
        assert words in str(caught.value)
