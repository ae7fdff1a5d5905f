"""LoRA (Hu et al., 2022) by peft: from the second task on, low-rank updates of the layers and the output layer in full.

The first task is trained in full and shared by all methods. One adapter learns all later tasks, or a new one each
(`merge`), the last having been added to the weights.
"""

from __future__ import annotations

import copy

from fipbench.baselines._laws import LEARNING_RATE
from torch import nn

from fipbench.errors import UserError
from fipbench.methods import Choice, continual


@continual(search={"learning_rate": LEARNING_RATE, "rank": Choice((1, 2, 4, 8, 16))})
def lora(*, learning_rate: float = 0.003, rank: int = 4, scale: float = 2.0, layers: str = "", merge: bool = False):
    """Updates of low rank; `scale` is alpha / rank, `layers` names the adapted ones, in full or
    by the last parts of their names, as `query,value` (none: all but the output's)."""
    return _Lora(learning_rate, rank, scale, layers, merge)


class _Lora:
    """`learn(model, experience, trial)`; `network(model)` is the plain network at any moment."""

    def __init__(self, learning_rate: float, rank: int, scale: float, layers: str, merge: bool) -> None:
        self.learning_rate, self.rank, self.scale, self.merge = learning_rate, rank, scale, merge
        self.layers = [name.strip() for name in layers.split(",") if name.strip()]
        self.adapted = False

    def __call__(self, model, experience, trial):
        if experience.number == 0:
            return model
        if not self.adapted:
            self._adapt(model)
        trial.fit(model, experience, learning_rate=self.learning_rate)
        plain = self.network(model)
        if self.merge:
            self._unwrap(model)
        return plain

    def network(self, model: nn.Module) -> nn.Module:
        """A copy of the network with the update added to its weights."""
        plain = copy.deepcopy(model)
        if self.adapted:
            _merged(plain)
        return plain

    def _adapt(self, model: nn.Module) -> None:
        from fipbench.compat import import_torchvision

        import_torchvision()
        from peft import LoraConfig, inject_adapter_in_model

        names = self.layers or _adaptable(model)[:-1]
        unknown = [name for name in names if not any(f".{layer}".endswith(f".{name}") for layer in _adaptable(model))]
        if unknown:
            raise UserError(f"lora.layers: no layer '{unknown[0]}'; there are {', '.join(_adaptable(model))}")
        head = model.get_submodule(_adaptable(model)[-1])
        config = LoraConfig(r=self.rank, lora_alpha=self.scale * self.rank, target_modules=names, lora_dropout=0.0)
        inject_adapter_in_model(config, model)
        head.requires_grad_(True)
        self.adapted = True

    def _unwrap(self, model: nn.Module) -> None:
        """Add the update to the weights of `model` itself, which is plain again."""
        _merged(model)
        model.requires_grad_(True)
        del model.peft_config  # or peft warns of a second adapter beside the first
        self.adapted = False


def _adaptable(model: nn.Module) -> list[str]:
    """Names of the linear layers and convolutions; the last is the output layer."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def _merged(model: nn.Module) -> None:
    """Replace every adapted layer of `model` by the layer with the update added."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
