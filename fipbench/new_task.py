"""`fipbench new task`: a task's file that runs as it is and says what each line means, for its author to go on from."""

from __future__ import annotations

from pathlib import Path

from fipbench import reading, registry
from fipbench.errors import UserError
from fipbench.spec import valid_name

_HEAD = """\
# A task of your own, on scikit-learn's digits to begin with: fipbench run {file} --seeds 2
title   = "{title}"
track   = "{track}"
# Of the seeds of this suite: quick 10, standard 5. Not evidence as long as it is quick.
suites  = ["quick"]
# Raise it when you change what the task computes; boards show the newest version's records alone.
version = 1
"""

_DATA = """\
# A name of `fipbench data list`, or your own: data/NAME.toml beside this file, or in its place a table
# {{ repo = "OWNER/NAME", revision = "COMMIT", input = "image", label = "label", variants = {{}} }};
# the first run says the digests that `variants` asks for.
data    = {data}
# Inputs in [0, 1] are normalised by mean and std. Others: cnn, resnet, vgg16, vit, bert, ...
model   = {{ name = "mlp", inputs = [1, 8, 8], hidden = [64], outputs = {outputs}, mean = 0.305, std = 0.376 }}
"""

_TAIL = {
    "composition": """\
# How the network learns the first data set; all methods begin with that network.
base    = {{ epochs = 5, batch_size = 24, learning_rate = 0.05 }}
# Of each operation: epochs over the data that it has in hand, forward and backward.
budget  = {{ epochs = 1, batch_size = 24 }}
# Examples that may be kept of the data set that is past.
memory     = 40
# Fractions of the weights that are zero after compression; at `repeat` both orders are gone through twice.
sparsities = [0.5, 0.8]
repeat     = 0.8
# Cut from the training examples for `fipbench tune`; a run trains on all of them.
validation = 300
headline   = "average_accuracy"
""",
    "connectivity": """\
# How each of the two networks at the ends is trained, from two seeds.
base    = {{ epochs = 5, batch_size = 32, learning_rate = 0.05 }}
# Epochs in all: those of both networks, and what is left for a method.
budget  = {{ epochs = 15, batch_size = 32 }}
# Places along the path at which it is measured.
points     = 11
# Cut from the training examples for `fipbench tune`; a run trains on all of them.
validation = 300
# What ranks: the lowest accuracy at any of the places.
headline   = "lowest_accuracy"
""",
    "continual": """\
# Which classes come one after another (or permutations = 5), and how answers are scored: over all outputs (class), or
# over those of the example's own task (task).
stream  = {{ classes = [[0, 1], [2, 3], [4, 5]], score = ["class", "task"] }}
# How the first task is learned, by a network that all methods share; snapshots keeps weights for rewinding.
base    = {{ epochs = 5, batch_size = 16, learning_rate = 0.03, snapshots = [0] }}
# Epochs of each later task. A method may spend `factor` times what fine-tuning does.
budget  = {{ epochs = 5, batch_size = 16, factor = 4 }}
# Examples a task that methods with a memory may keep: a row of the board for each.
memories   = [4]
# Cut from the training examples for `fipbench tune`; a run trains on all of them.
validation = 300
# What ranks.
headline   = "average_accuracy/class"
# Methods that are no rows: this one's distance is fip's where the loss is over all outputs, as here.
without    = ["fip-task-outputs"]
""",
    "robustness": """\
# How the shared network N1 is trained.
base    = {{ epochs = 5, batch_size = 32, learning_rate = 0.05 }}
# Epochs in all, N1's included.
budget  = {{ epochs = 15, batch_size = 32 }}
# Networks that vote.
members    = 3
# Radii of the L-infinity ball on inputs in [0, 1]; steps and restarts of PGD; steps of APGD; test examples attacked.
attack     = {{ epsilons = [0.05, 0.1], steps = 10, restarts = 1, apgd_steps = 10, items = 100 }}
# Cut from the training examples for `fipbench tune`; a run trains on all of them.
validation = 300
# What ranks: accuracy under the worst of the attacks, at one of the radii.
headline   = "robust@0.1"
""",
    "sparsity": """\
# How the dense network is trained that all methods begin with; snapshots keeps weights for rewinding.
base    = {{ epochs = 10, batch_size = 32, learning_rate = 0.05, snapshots = [0, 1] }}
# Epochs in all, those of the dense network included.
budget  = {{ epochs = 20, batch_size = 32 }}
# Fractions of the prunable weights (matrices and kernels) that are zero.
sparsities = [0.8, 0.9, 0.95]
# Cut from the training examples for `fipbench tune`; a run trains on all of them.
validation = 300
# What ranks: the area under accuracy over sparsity, or accuracy@0.95.
headline   = "area"
""",
}

_METHODS = """
# Settings of a method on this task, or a row more of it under a name of its own:
# [methods.{method}]
# {parameter} = {value}
# [methods.{method}-other]
# use = "{method}"
# {parameter} = {other}
"""

_EXTENDS = """\
# A task of your own, as {parent} but for what stands here: fipbench run {file} --seeds 2
extends = "{parent}"
title   = "{title}"
suites  = ["{suite}"]
# Raise it when you change what the task computes; boards show the newest version's records alone.
version = 1

# Take the # from what you want otherwise. Tables are merged field by field: budget = {{ epochs = 3 }} keeps
# the rest. Settings that a search found for {parent} are not inherited, nor are published numbers.
{lines}
"""

_EXAMPLE = {
    "composition": ("naive", "learning_rate", "0.001", "0.002"),
    "connectivity": ("bezier", "learning_rate", "0.01", "0.02"),
    "continual": ("ewc", "strength", "100.0", "10.0"),
    "robustness": ("snapshot", "learning_rate", "0.03", "0.05"),
    "sparsity": ("magnitude-finetune", "learning_rate", "0.01", "0.02"),
}
# What a task has of its own, which one that extends it has not.
_OWN = ("title", "track", "suites", "version", "extends", "tuned", "claims", "published")


def new_task(name: str, track: str, parent: str, out: Path) -> Path:
    """Write `out`/NAME.toml, a task of that track, or one that extends a task; the file written.

    Raises:
        UserError: a name that is none or is taken, neither track nor task or two that do not agree, one that is not
            there, a file that is there.
    """
    if not valid_name(name) or not name[0].isalpha():
        raise UserError(
            f"task '{name}': a name begins with a letter and holds lower-case letters, digits and hyphens only"
        )
    if name in registry.task_files():
        raise UserError(f"task '{name}' is there already ({registry.task_files()[name]})")
    if not track and not parent:
        raise UserError(f"name a track or a task to begin with: --track {'|'.join(_TAIL)}, or --extends TASK")
    if track and track not in _TAIL:
        raise UserError(f"--track {track}: expected {', '.join(_TAIL)}")
    file = out / f"{name}.toml"
    if file.exists():
        raise UserError(f"{file}: is there already; name another with --out, or remove it")
    text = _extending(name, parent, track) if parent else _of_track(name, track)
    try:
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); name another folder with --out") from None
    return file


def _of_track(name: str, track: str) -> str:
    two = track == "composition"
    method, parameter, value, other = _EXAMPLE[track]
    words = {
        "file": f"{name}.toml",
        "title": _title(name),
        "track": track,
        "data": '["digits", "digits"]' if two else '"digits"',
        # The labels of a second data set are counted on from those of the first.
        "outputs": 20 if two else 10,
        "method": method,
        "parameter": parameter,
        "value": value,
        "other": other,
    }
    return (_HEAD + _DATA + _TAIL[track] + _METHODS).format(**words)


def _extending(name: str, parent: str, track: str) -> str:
    task = registry.read_task(parent)
    if track and track != task.track:
        raise UserError(f"--track {track}: task '{parent}' is of track {task.track}; leave one of the two out")
    if parent not in registry.task_files():
        raise UserError(f"--extends {parent}: expected the name of an installed task; `fipbench list tasks` shows them")
    return _EXTENDS.format(
        parent=parent,
        file=f"{name}.toml",
        title=_title(name),
        suite=task.suites[0],
        lines="\n".join(f"# {line}".rstrip() for line in _lines(parent)),
    )


def _lines(parent: str) -> list[str]:
    """The lines of a task's file that another may have otherwise, with those of what it extends itself."""
    found: list[str] = []
    taken: set[str] = set()
    while parent:
        path = registry.task_files()[parent]
        for line in path.read_text(encoding="utf-8").splitlines():
            key = line.partition("=")[0].strip()
            if line.startswith("["):
                break
            if key in _OWN or key in taken or not key or line.startswith("#"):
                continue
            taken.add(key)
            found.append(line)
        parent = str(reading.read_toml(path).get("extends", ""))
    return found


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()
