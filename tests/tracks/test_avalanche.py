"""Avalanche's plugins in Avalanche's own loop: the same training as `fit`, on the harness's batches and data only."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streams import CLASSES, Bench, Watched, load, weights_of

from fipbench import compat
from fipbench.errors import ProtocolError
from fipbench.tracks import avalanche

compat.import_torchvision()

from avalanche.training.plugins import ReplayPlugin, SupervisedPlugin  # noqa: E402

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("avalanche"), cache_dir)


class Plain(SupervisedPlugin):
    """Does nothing: fine-tuning."""

    learning_rate = RATE


def same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> bool:
    return all(np.array_equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x | y)


@pytest.mark.parametrize(
    "more",
    ["", "momentum = 0", "weight_decay = 0.01", "clip = 0.2", 'optimizer = "adam"', 'optimizer = "adamw", clip = 1.0'],
)
def test_naive_in_avalanche_is_naive_in_fit_to_the_bit(tmp_path, cache_dir, more):
    base = f"{{ epochs = 2, batch_size = 16, learning_rate = 0.02, snapshots = [0]{more and ', '}{more} }}"
    bench = Bench(tmp_path, cache_dir, base=base)
    ours, plain = Watched(avalanche.learner(Plain())), Watched(load("naive", learning_rate=RATE))
    found, wanted = bench.run(ours), bench.run(plain)
    assert same(ours.ends, plain.ends)
    assert not same(plain.ends[:2], plain.ends[1:])
    assert (found.meter.forward, found.meter.backward) == (wanted.meter.forward, wanted.meter.backward)
    assert found.items == wanted.items
    assert found.curves == wanted.curves


def test_the_loss_is_over_the_outputs_that_the_task_says(tmp_path, cache_dir):
    stream = '{ classes = [[0, 1], [2, 3], [4, 5]], score = ["task"], softmax = "task" }'
    masked = Bench(tmp_path, cache_dir, stream=stream, headline='"average_accuracy/task"')
    ours, plain = Watched(avalanche.learner(Plain())), Watched(load("naive", learning_rate=RATE))
    masked.run(ours)
    masked.run(plain)
    assert same(ours.ends, plain.ends)


def test_a_plugin_that_names_no_learning_rate_gets_that_of_the_recipe(bench):
    ours = Watched(avalanche.learner(SupervisedPlugin()))
    plain = Watched(load("naive", learning_rate=bench.task.base.learning_rate))
    other = Watched(load("naive", learning_rate=RATE))
    for method in (ours, plain, other):
        bench.run(method)
    assert same(ours.ends, plain.ends) and not same(ours.ends, other.ends)


def test_what_is_a_plugin_is_known_without_importing_avalanche():
    assert avalanche.is_plugin(Plain()) and not avalanche.is_plugin(Plain)
    assert not avalanche.is_plugin(lambda model, experience, trial: None)
    code = "import sys; from fipbench.tracks import continual, avalanche; assert not avalanche.is_plugin(print); "
    code += "assert not [n for n in sys.modules if n.split('.')[0] in ('avalanche', 'torchvision')]"
    subprocess.run([sys.executable, "-c", code], check=True)


class Log(Plain):
    """Notes every hook, and what the strategy shows in it."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[list[str]] = []
        self.inputs: list[list[torch.Tensor]] = []
        self.starts: list[dict[str, np.ndarray]] = []
        self.experiences: list[Any] = []
        self.training: set[bool] = set()

    def before_training_exp(self, strategy, **kwargs):
        self.hooks.append(["before_training_exp"])
        self.inputs.append([])
        self.starts.append(weights_of(strategy.model))
        self.experiences.append(strategy.experience)

    def after_forward(self, strategy, **kwargs):
        self.hooks[-1].append("after_forward")
        self.training.add(strategy.model.training)
        self.inputs[-1].append(strategy.mb_x)
        assert torch.equal(strategy.mb_x, strategy.batch.inputs) and torch.equal(strategy.mb_y, strategy.batch.labels)
        assert torch.equal(strategy.mb_task_id, torch.zeros_like(strategy.mb_y))
        assert strategy.given.number == strategy.clock.train_exp_counter == len(self.hooks) - 1

    def after_training_exp(self, strategy, **kwargs):
        self.hooks[-1].append("after_training_exp")


def test_a_plugin_sees_the_very_batches_and_as_many_as_are_due(bench):
    log, plain = Log(), Watched(load("naive", learning_rate=RATE))
    ours = Watched(avalanche.learner(log))
    bench.run(ours)
    bench.run(plain)
    assert [len(batches) for batches in ours.batches] == [len(batches) for batches in plain.batches]
    assert len(ours.batches[0]) == 0 and len(ours.batches[1]) > 20
    for seen, drawn, wanted in zip(log.inputs, ours.batches, plain.batches, strict=True):
        assert len(seen) == len(drawn)
        for x, a, b in zip(seen, drawn, wanted, strict=True):
            assert torch.equal(a.positions, b.positions) and torch.equal(x, b.inputs)
    assert log.training == {True}


def test_the_first_task_is_over_but_its_hooks_run(bench):
    log = Log()
    seen = Watched(avalanche.learner(log))
    bench.run(seen)
    assert log.hooks[0] == ["before_training_exp", "after_training_exp"]
    assert same(seen.starts[:1], seen.ends[:1])


def test_the_experience_is_the_tasks_training_data_and_leads_nowhere(bench):
    log = Log()
    bench.run(log)
    for number, (experience, classes) in enumerate(zip(log.experiences, CLASSES, strict=True)):
        x, y = bench.part("train", classes)
        found = [experience.dataset[i] for i in range(len(experience.dataset))]
        np.testing.assert_array_equal(np.stack([item[0].flatten().numpy() for item in found]), x.astype("f4"))
        assert [item[1] for item in found] == y.tolist() == list(experience.dataset.targets)
        assert {item[2] for item in found} == {0} == set(experience.dataset.targets_task_labels)
        assert experience.current_experience == number
        assert experience.classes_in_this_experience == list(classes)
        assert (experience.task_label, experience.task_labels) == (0, [0])
        assert experience._origin_stream is None


class Watcher(Log):
    watches_first_task = True


def test_a_plugin_that_watches_sees_the_first_task_being_learned_and_pays_nothing(bench):
    log = Watcher()
    seen = Watched(avalanche.learner(log))
    outcome = bench.run(seen)
    plain = bench.run(load("naive", learning_rate=RATE))
    epoch = len(bench.part("train", (0, 1))[1]) // 16
    assert log.hooks[0] == ["before_training_exp", *["after_forward"] * (2 * epoch), "after_training_exp"]
    assert same(seen.starts[:1], seen.ends[:1])
    assert not same(log.starts[:1], seen.starts[:1])
    assert (outcome.meter.forward, outcome.meter.backward) == (plain.meter.forward, plain.meter.backward)
    assert outcome.items == plain.items


def test_what_a_watching_plugin_computes_besides_is_counted(bench):
    class Curious(Watcher):
        def after_update(self, strategy, **kwargs):
            if strategy.given.number == 0:
                strategy.model(strategy.mb_x).sum().backward()

    plain = bench.run(load("naive", learning_rate=RATE))
    curious = bench.run(Curious())
    passes = 2 * (len(bench.part("train", (0, 1))[1]) // 16) * 16
    assert curious.meter.forward == plain.meter.forward + passes
    assert curious.meter.backward == plain.meter.backward + passes


def test_a_watching_plugin_may_not_change_how_the_first_task_is_learned(bench):
    class Meddler(Watcher):
        def after_backward(self, strategy, **kwargs):
            for weight in strategy.model.parameters():
                weight.grad.mul_(1.01)

    with pytest.raises(ProtocolError, match="watches the first task changed how it is learned"):
        bench.run(Meddler())


def test_a_term_that_a_plugin_adds_to_the_loss_is_what_it_is_in_fit(bench):
    class Decay(Plain):
        def before_backward(self, strategy, **kwargs):
            strategy.loss += 0.05 * sum(weight.square().sum() for weight in strategy.model.parameters())

    def learn(model, experience, trial):
        def loss(network, batch):
            decay = 0.05 * sum(weight.square().sum() for weight in network.parameters())
            return trial.criterion.loss(network, batch) + decay

        trial.fit(model, experience, learning_rate=RATE, loss=loss)

    ours, plain, none = Watched(avalanche.learner(Decay())), Watched(learn), Watched(avalanche.learner(Plain()))
    for method in (ours, plain, none):
        bench.run(method)
    for name, value in plain.ends[-1].items():
        np.testing.assert_allclose(ours.ends[-1][name], value, atol=1e-6)
    assert not same(ours.ends, none.ends)


def test_avalanches_own_replay_brings_its_loader_and_runs_as_many_steps(bench):
    class Counted(ReplayPlugin):
        steps = 0
        old = 0

        def after_training_iteration(self, strategy, **kwargs):
            self.steps += 1
            self.old += int((strategy.mb_y < min(strategy.given.classes)).sum())

    plugin, plain = Counted(mem_size=12, batch_size=8, batch_size_mem=4), Watched(load("naive", learning_rate=RATE))
    bench.run(plain)
    bench.run(plugin)
    assert plugin.steps == sum(len(batches) for batches in plain.batches)
    assert plugin.old > plugin.steps


def test_modes_are_put_back_and_nothing_is_said(bench, capfd):
    modes = []

    def learn(model, experience, trial):
        model.eval()
        inner(model, experience, trial)
        modes.append(model.training)

    inner = avalanche.learner(Plain())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.run(learn)
    assert modes == [False] * 3
    assert capfd.readouterr() == ("", "")


def test_what_is_left_of_a_task_is_what_the_plugin_kept(bench):
    """Between tasks the strategy holds no data."""
    held = []

    class Grip(Plain):
        def before_training_exp(self, strategy, **kwargs):
            self.strategy = strategy

    plugin = Grip()
    inner = avalanche.learner(plugin)

    def learn(model, experience, trial):
        inner(model, experience, trial)
        strategy = plugin.strategy
        fields = ("given", "own_batches", "batch", "experience", "adapted_dataset", "mbatch", "mb_output")
        held.extend(getattr(strategy, name) for name in fields)
        held.append(list(strategy.dataloader) or None)

    bench.run(learn)
    assert held and all(value is None for value in held)


PLUGIN = '''
from fipbench.methods import continual


@continual()
def shrinking(*, strength: float = 0.1):
    """A user's plugin, as anyone writes them for Avalanche."""
    from avalanche.training.plugins import SupervisedPlugin

    class Shrinking(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            strategy.loss += strength * sum(w.square().sum() for w in strategy.model.parameters())

    return Shrinking()


@continual()
def broken():
    """Raises in a hook."""
    from avalanche.training.plugins import SupervisedPlugin

    class Broken(SupervisedPlugin):
        def after_backward(self, strategy, **kwargs):
            raise ValueError("no such thing")

    return Broken()
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(textwrap.dedent(PLUGIN))
    return path


def test_a_users_plain_plugin_gives_a_record(bench, file):
    method = bench.method("shrinking", file)
    record = bench.record(bench.job(method), method.target)
    assert record.status == "ok", record.error
    assert 0 < record.metrics["average_accuracy/task"] <= 1
    assert any(name.startswith("course/class/3") for name in record.curves)


def test_a_plugin_that_raises_fails_its_job_and_says_where(bench, file):
    method = bench.method("broken", file)
    record = bench.record(bench.job(method), method.target)
    assert record.status == "failed" and record.error is not None
    assert (record.error.type, record.error.message) == ("ValueError", "no such thing")
    assert "theirs.py" in record.error.where[-1] and "after_backward" in record.error.where[-1]
