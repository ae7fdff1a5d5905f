"""Avalanche's own strategies and plugins by their names: `fipbench run split-digits-5 --methods avalanche:MAS`.

Whatever `avalanche.training.supervised` and `avalanche.training.plugins` export is a method called `avalanche-NAME`, in
lower case and with hyphens. Its parameters are those of the class's constructor that are numbers, words or switches,
with the library's defaults, and `learning_rate`, 0 for the recipe's. How large a memory is belongs to the task: a
class that stores examples has the parameter `memory`, examples a task, in place of the library's own. Its
version is the library's, so that another release never returns an old number.

What needs something that the harness has not, such as a network in two parts, is refused with the reason.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fipbench import compat
from fipbench.errors import UserError
from fipbench.methods import Mark
from fipbench.registry import plain_name

if TYPE_CHECKING:
    from torch import nn

    from fipbench.tracks.continual import Trial

# What the harness gives or has no use for.
_GIVEN = ("self", "model", "optimizer", "criterion", "plugins", "evaluator", "device", "num_workers", "verbose")
_RUNS = ("train_mb_size", "train_epochs", "eval_mb_size", "eval_every", "peval_mode")
# Sizes of a memory: of all tasks together, and of each.
_IN_ALL, _A_TASK = ("mem_size",), ("patterns_per_exp", "patterns_per_experience")
_NONE = "none"

# Real numbers whose defaults are written as whole ones, without a type.
_REAL = ("alpha", "temperature")

# Those that see nothing unless they see the first task being learned.
_WATCHES = ("MIR", "MIRPlugin", "RWalkPlugin", "SynapticIntelligence", "SynapticIntelligencePlugin")

_PAST = "it trains on all past data; the suite's own is `joint`"
_ANEW = "it begins anew with each task, where all methods here go on from one network that has learned the first"
_PARTS = "it needs a network with a named part for features, which the suite's networks have not"
_GENERATIVE = "it trains an image generator of its own, whose cost the harness could not count"
_CLASSIFIER = "it puts a classifier of its own on a network with named features, where the harness scores outputs"
_SECOND = "it sets a part of each task's data aside and trains a second stage on it in a loop of its own"
_HELPER = "it is no method by itself, but a part of one"
REFUSED = {
    "AETraining": "it trains an autoencoder, not a classifier",
    "AR1": "it needs its own MobileNet and brings its own optimiser",
    "BiC": _SECOND,
    "BiCPlugin": _SECOND,
    "CWRStar": _PARTS,
    "CWRStarPlugin": _PARTS,
    "CoPE": "it takes the last layer of the network away, whose outputs the harness scores",
    "CoPEPlugin": "it takes the last layer of the network away, whose outputs the harness scores",
    "Cumulative": _PAST,
    "CurrentDataFeCAMUpdate": _CLASSIFIER,
    "CurrentDataNCMUpdate": _CLASSIFIER,
    "ER_AML": _PARTS,
    "EarlyStoppingPlugin": "it measures on a validation stream, which no experience here leads to",
    "ExpertGateStrategy": "it needs its own network with a gate and an expert a task",
    "FeCAMOracle": _CLASSIFIER,
    "FeatureDistillationPlugin": _PARTS,
    "FeatureReplay": _PARTS,
    "FromScratchTraining": _ANEW,
    "FromScratchTrainingPlugin": _ANEW,
    "GSS_greedy": "it needs 'input_size', a list",
    "GSS_greedyPlugin": "it needs 'input_size', a list",
    "GDumb": _ANEW,
    "GDumbPlugin": _ANEW,
    "GenerativeReplay": _GENERATIVE,
    "GenerativeReplayPlugin": _GENERATIVE,
    "ICaRL": _PARTS,
    "JointTraining": _PAST,
    "LFL": _PARTS,
    "LFLPlugin": _PARTS,
    "LRSchedulerPlugin": "it needs a scheduler, an object; the task's recipe has `decay`",
    "LearningToPrompt": "it brings a pretrained vision transformer of its own",
    "MemoryFeCAMUpdate": _CLASSIFIER,
    "MemoryNCMUpdate": _CLASSIFIER,
    "NCMOracle": _CLASSIFIER,
    "PNNStrategy": "it needs a network that grows a column a task",
    "PackNet": "it needs a network of its own with masks a task",
    "RARPlugin": "it computes with a traced copy of the network, whose cost the harness could not count",
    "SCR": _PARTS,
    "StreamingLDA": "it trains no network, but a classifier on features",
    "TrainGeneratorAfterExpPlugin": _HELPER,
    "VAETraining": "it trains an autoencoder, not a classifier",
}


def __getattr__(name: str) -> Any:
    """The factory of that name, as the registry asks for it (`fipbench.tracks.strategies:mas`)."""
    if name.startswith("_"):
        raise AttributeError(name)
    return factory(name)


def method_name(name: str) -> str:
    """The class `ER_ACE` as the name of a method, `avalanche-er-ace`."""
    return plain_name(f"avalanche:{name}")


@cache
def exported() -> dict[str, type]:
    """Every strategy and plugin that the library exports, by name."""
    compat.import_torchvision()
    from avalanche.core import BasePlugin
    from avalanche.training import plugins, supervised
    from avalanche.training.templates.base import BaseTemplate

    found: dict[str, type] = {}
    for module, base in ((supervised, BaseTemplate), (plugins, BasePlugin)):
        for name, value in sorted(vars(module).items()):
            own = inspect.isclass(value) and value.__module__.startswith(module.__name__)
            if own and issubclass(value, base):
                found[name] = value
    return found


def factory(name: str) -> Callable[..., Any]:
    """A factory as `fipbench.methods.continual` marks one, for the class of that name, however it is written.

    Raises:
        UserError: there is no such class, or it is one that the harness cannot run; says why.
    """
    known = {method_name(one): one for one in exported()}
    wanted = method_name(name)
    if wanted not in known:
        near = [known[one] for one in get_close_matches(wanted, known, n=3, cutoff=0.7)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known.values()))}"
        raise UserError(f"avalanche-lib {version('avalanche-lib')} has no strategy or plugin '{name}': {hint}")
    name = known[wanted]
    if name in REFUSED:
        raise UserError(f"avalanche:{name} cannot be run here: {REFUSED[name]}")
    defaults, required, sizes = _parameters(name, exported()[name])

    def make(**params: Any) -> Callable[..., Any]:
        return _learner(name, {**defaults, **params}, sizes)

    mark = Mark(
        track="continual",
        version=version("avalanche-lib"),
        role="method",
        settings="default",
        search={},
        defaults=defaults,
        summary=f"{name} of avalanche-lib {version('avalanche-lib')}, as it is there.",
        required=required,
    )
    make.fipbench = mark  # type: ignore[attr-defined]
    return make


def _parameters(name: str, kind: type) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Parameters with their defaults (of a required one its type's zero), those required, and the sizes of memory."""
    defaults: dict[str, Any] = {"learning_rate": 0.0}
    required, sizes = [], []
    for parameter in inspect.signature(kind.__init__).parameters.values():  # type: ignore[misc]
        plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if not plain or parameter.name in (*_GIVEN, *_RUNS):
            continue
        if parameter.name in (*_IN_ALL, *_A_TASK):
            sizes.append(parameter.name)
            defaults["memory"] = 10
        elif isinstance(parameter.default, bool | int | float | str):
            real = "float" in _words(parameter) or parameter.name in _REAL
            whole = type(parameter.default) is int
            defaults[parameter.name] = float(parameter.default) if whole and real else parameter.default
        elif parameter.default is None and _words(parameter) & {"int", "float"} and "Sequence" not in _words(parameter):
            defaults[parameter.name] = _NONE
        elif parameter.default is parameter.empty:
            zero = 0 if _words(parameter) & {"int"} else 0.0 if _words(parameter) & {"float", "_empty"} else None
            if zero is None:
                raise UserError(f"avalanche:{name} cannot be run here: it needs '{parameter.name}', an object")
            defaults[parameter.name] = zero
            required.append(parameter.name)
    return dict(sorted(defaults.items())), tuple(required), tuple(sizes)


def _words(parameter: inspect.Parameter) -> set[str]:
    """The words of a parameter's annotation, which may be a text itself."""
    return set(re.findall(r"\w+", getattr(parameter.annotation, "__name__", "") + str(parameter.annotation)))


class _Settings:
    """What `fipbench.tracks.avalanche.learner` asks a plugin for."""

    def __init__(self, name: str, learning_rate: float) -> None:
        self.watches_first_task = name in _WATCHES
        if learning_rate:
            self.learning_rate = learning_rate


def _learner(name: str, params: dict[str, Any], sizes: tuple[str, ...]) -> Callable[..., Any]:
    """`learn(model, experience, trial)` by the class of that name."""
    import torch
    from torch import nn

    from fipbench.tracks import avalanche

    kind = exported()[name]
    own = {key: _value(name, key, value) for key, value in params.items() if key not in ("learning_rate", "memory")}

    def build(model: nn.Module, trial: Trial) -> Any:
        for size in sizes:
            own[size] = trial.memory * (trial.tasks if size in _IN_ALL else 1)
        given = {
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=trial.recipe.learning_rate),
            # The same numbers; some classes change torch's own.
            "criterion": nn.CrossEntropyLoss() if trial.criterion.outputs_of is None else trial.criterion,
            "train_mb_size": trial.batch_size,
            "device": next(model.parameters()).device,
        }
        if hasattr(kind, "train"):
            return avalanche.silent(avalanche.fed(kind), **given, **own)
        compat.import_torchvision()
        from avalanche.training.templates import SupervisedTemplate

        return avalanche.silent(avalanche.fed(SupervisedTemplate), **given, plugins=[kind(**own)])

    settings = _Settings(name, params["learning_rate"])
    learn: Any = avalanche.learner(settings, build)
    learn.watches_first_task = settings.watches_first_task
    return learn


def _value(name: str, parameter: str, value: Any) -> Any:
    """A parameter as the class takes it: a number that may be left out is written as a word.

    Raises:
        UserError: it is neither a number nor `none`.
    """
    default = _parameters(name, exported()[name])[0][parameter]
    if default != _NONE:
        return value
    if value == _NONE:
        return None
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    raise UserError(f"avalanche:{name}: {parameter}={value}: expected a number or none")
