"""`fipbench new method`: a package with a method that runs as it is, for its author to go on from."""

from __future__ import annotations

import keyword
from pathlib import Path

from fipbench import registry
from fipbench.errors import UserError
from fipbench.spec import valid_name

_PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{package}"
version = "0.1.0"
description = "{title}: a method for fipbench"
requires-python = ">=3.11"
dependencies = ["fipbench"]

[project.entry-points."fipbench.methods.{track}"]
{name} = "{module}:{function}"

[tool.setuptools]
py-modules = ["{module}"]
"""

_TEST = '''\
"""The method keeps what fipbench asks of every method."""

from pathlib import Path

from fipbench.conformance import examine

METHOD = Path(__file__).with_name("{module}.py")


def test_it_keeps_the_contract():
    findings = list(examine(str(METHOD)))
    assert len(findings) > 1
    assert not [f"{{finding.check}}: {{finding.wrong}}" for finding in findings if finding.wrong]
'''

_METHODS = {
    "composition": '''\
"""{title}: fine-tuning, and the smallest weights taken with training after it. Put your method in its place."""

from fipbench import pruning
from fipbench.methods import LogUniform, composition


@composition(search={{"learning_rate": LogUniform(1e-5, 1e-2)}})
def {function}(*, learning_rate: float = 1e-3):
    """{title}: fine-tuning and magnitude pruning, to begin with."""

    def operate(network, operation, trial):
        # Called once for each operation of both orders: to learn (`cl`), or to bring the network to a sparsity (`co`).
        masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
        steps = trial.steps(2 * trial.batch_size)
        return trial.fit(network, operation, steps=steps, learning_rate=learning_rate, masks=masks)

    return operate
''',
    "connectivity": '''\
"""{title}: by way of a network between the two that is trained on. Put your method in its place."""

import copy

import torch

from fipbench.methods import LogUniform, connectivity


@connectivity(search={{"learning_rate": LogUniform(1e-4, 0.3)}})
def {function}(*, learning_rate: float = 0.01):
    """{title}: a path of two straight lines, to begin with."""

    def path(first, second, trial):
        middle = copy.deepcopy(first)  # the two networks have to stay as they are
        with torch.no_grad():
            for weight, other in zip(middle.parameters(), second.parameters(), strict=True):
                weight.lerp_(other, 0.5)
        trial.fit(middle, steps=trial.steps, learning_rate=learning_rate)
        return [middle, second]

    return path
''',
    "continual": '''\
"""{title}: fine-tuning with a batch from memory beside the new one. Put your method in its place."""

from fipbench.methods import LogUniform, continual


@continual(search={{"learning_rate": LogUniform(1e-4, 0.3)}})
def {function}(*, learning_rate: float = 0.003, memory: int = 10):
    """{title}: replay, to begin with."""
    kept = []  # of each task that is past, `memory` examples

    def learn(model, experience, trial):
        def loss(network, batch):
            parts = [batch, *(trial.draw(examples) for examples in kept)]
            return sum(trial.criterion(network(part.inputs), part.labels) for part in parts)

        # The first task has been learned already, by a network that all methods share: no steps are due on it.
        trial.fit(model, experience, learning_rate=learning_rate, loss=loss)
        kept.append(trial.remember(experience))

    return learn
''',
    "robustness": '''\
"""{title}: networks that are trained on from one another. Put your method in its place."""

import copy

from fipbench.methods import LogUniform, robustness


@robustness(search={{"learning_rate": LogUniform(1e-4, 0.3)}})
def {function}(*, learning_rate: float = 0.03):
    """{title}: copies of a network as it trains, to begin with."""

    def members(model, trial):
        network = copy.deepcopy(model)  # the shared network N1, which has to stay as it is
        steps = trial.steps // trial.members
        for _ in range(trial.members):
            trial.fit(network, steps=steps, learning_rate=learning_rate)
            yield copy.deepcopy(network)

    return members
''',
    "sparsity": '''\
"""{title}: the smallest weights are taken, the others trained on. Put your method in its place."""

import copy

from fipbench import pruning
from fipbench.methods import LogUniform, sparsity


@sparsity(search={{"learning_rate": LogUniform(1e-4, 0.3)}})
def {function}(*, learning_rate: float = 0.01):
    """{title}: magnitude pruning, to begin with."""

    def prune(model, sparsities, trial):
        network = copy.deepcopy(model)  # the shared dense network, which has to stay as it is
        steps = trial.steps // len(sparsities)
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(network), level)
            trial.fit(network, steps=steps, learning_rate=learning_rate, masks=masks)
            yield level, copy.deepcopy(network)

    return prune
''',
}


# What a method's file imports by a name that a method could have.
_IMPORTED = ("copy", "pruning", "torch")


def new_method(name: str, track: str, out: Path) -> list[Path]:
    """Write the package of a new method to the folder `out`/NAME: the files written, the method's first.

    Raises:
        UserError: a name that is none or is taken in that track, a track that is none, a folder that is there.
    """
    if track not in _METHODS:
        raise UserError(f"--track {track}: expected {', '.join(_METHODS)}")
    if not valid_name(name) or not name[0].isalpha() or "+" in name or name.endswith("-"):
        raise UserError(
            f"method '{name}': a name begins with a letter and holds lower-case letters, digits and hyphens only"
        )
    if name in registry.method_names(track):
        raise UserError(f"method '{name}' of track {track} is there already ({registry.entry_origin(track, name)})")
    folder = out / name
    if folder.exists():
        raise UserError(f"{folder}: is there already; name another with --out, or remove it")
    function = name.replace("-", "_")
    if keyword.iskeyword(function) or function in _IMPORTED:
        raise UserError(f"method '{name}': is a word of Python, or of what its file imports; name it otherwise")
    # A module of its own name: one called like a library would hide it.
    words = {
        "name": name,
        "track": track,
        "function": function,
        "module": f"fipbench_{function}",
        "package": f"fipbench-{name}",
        "title": name.replace("-", " ").capitalize(),
    }
    files = {
        f"{words['module']}.py": _METHODS[track],
        f"test_{function}.py": _TEST,
        "pyproject.toml": _PYPROJECT,
    }
    try:
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text.format(**words), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); name another with --out") from None
    return [folder / file for file in files]
