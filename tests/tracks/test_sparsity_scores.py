"""A sparsity task that names its score: what the area is of, and what stays beside it."""

from __future__ import annotations

import copy
import math

import msgspec
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef

from fipbench import pruning, registry
from fipbench.errors import UserError
from fipbench.spec import task_digest
from fipbench.training import Examples, predict

LEVELS = (0.5, 0.9)


def magnitude(kept):
    def prune(model, sparsities, trial):
        kept[0.0] = copy.deepcopy(model)
        for level in sparsities:
            network = copy.deepcopy(model)
            pruning.apply(network, pruning.magnitude_masks(pruning.prunable(network), level))
            kept[level] = copy.deepcopy(network)
            yield level, network

    return prune


@pytest.fixture(scope="module")
def measured(lab):
    kept = {}
    task = msgspec.structs.replace(lab.task, score="matthews_correlation")
    outcome = lab.run(magnitude(kept), task)
    test = lab.split("test")
    examples = Examples(test.inputs, test.labels)
    predicted = {level: predict(network, examples).argmax(1).numpy() for level, network in kept.items()}
    return outcome, predicted, test.labels.numpy()


def test_the_score_is_measured_and_accuracy_beside_it(measured):
    outcome, predicted, labels = measured
    for level in LEVELS:
        score = matthews_corrcoef(labels, predicted[level])
        assert outcome.metrics[f"matthews_correlation@{level:g}"] == pytest.approx(score, abs=1e-9)
        assert outcome.metrics[f"accuracy@{level:g}"] == pytest.approx((predicted[level] == labels).mean(), abs=1e-9)
    assert outcome.metrics["dense_matthews_correlation"] == pytest.approx(matthews_corrcoef(labels, predicted[0.0]))
    assert outcome.metrics["dense_accuracy"] == pytest.approx((predicted[0.0] == labels).mean())


def test_the_area_is_of_the_score(measured):
    outcome, predicted, labels = measured
    scores = [matthews_corrcoef(labels, predicted[level]) for level in LEVELS]
    assert outcome.metrics["area"] == pytest.approx(np.mean(scores), abs=1e-9)
    right = [(predicted[level] == labels).mean() for level in LEVELS]
    assert abs(np.mean(scores) - np.mean(right)) > 1e-3
    assert outcome.curves["matthews_correlation"]["value"] == pytest.approx(scores)
    assert outcome.curves["accuracy"]["value"] == pytest.approx(right)


def test_items_say_which_were_right(measured):
    import base64

    outcome, predicted, labels = measured
    for level in LEVELS:
        items = outcome.items[f"{level:g}"]
        bits = np.unpackbits(np.frombuffer(base64.b64decode(items.bits), np.uint8))[: items.count]
        assert np.array_equal(bits.astype(bool), predicted[level] == labels)


def test_a_task_without_one_measures_what_it_did(lab):
    outcome = lab.run(magnitude({}))
    assert not [name for name in (*outcome.metrics, *outcome.curves) if "matthews" in name or "f1" in name]
    assert math.isclose(
        outcome.metrics["area"], (outcome.metrics["accuracy@0.5"] + outcome.metrics["accuracy@0.9"]) / 2
    )


def test_f1_of_two_classes(lab):
    """The digits are made two classes: below five, and the rest."""
    from fipbench.tracks.common import only_split
    from fipbench.tracks.sparsity import _Scorer

    task = msgspec.structs.replace(lab.task, score="f1")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    dense = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    score = _Scorer(task, dense, only_split(task, lab.job(), lab.cache).scoring)
    labels = (score.examples.labels >= 5).long()
    score.examples = Examples(score.examples.inputs, labels)
    outputs = predict(network, score.examples)
    found = score._scores(outputs)
    assert list(found) == ["f1", "accuracy"]
    assert found["f1"] == pytest.approx(f1_score(labels.numpy(), outputs.argmax(1).numpy()))


# ------------------------------------------------------------------------------------------- as files


def test_scores_and_headlines(tiny):
    plain = registry.read_task(str(tiny()))
    assert plain.scores == ["accuracy"] and plain.headlines == ["area", "accuracy@0.5", "accuracy@0.9"]
    file = tiny(score='"matthews_correlation"', headline='"matthews_correlation@0.9"')
    task = registry.read_task(str(file))
    assert task.scores == ["matthews_correlation", "accuracy"] and "accuracy@0.5" in task.headlines
    assert task_digest(task, 1) != task_digest(plain, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"score": '"f2"'}, r"unknown score 'f2'.*field 'score'"),
        ({"score": '"f1"'}, r"field 'score': f1 is of two classes.*model\.outputs is 10"),
        ({"headline": '"f1@0.5"'}, r"unknown metric 'f1@0\.5'"),
        ({"score": "3"}, r"field 'score': Expected `str`"),
        ({"data": '{ embedded = "digits", variants = {}, second = "x" }'}, r"field 'data\.second': pairs are of texts"),
        (
            {"data": '{ embedded = "digits", variants = {}, test = "x" }'},
            r"field 'data': 'second', 'train', 'test', 'scale', 'streamed' and a corpus are of a",
        ),
    ],
)
def test_what_a_task_may_not_say(fields, said, tiny):
    with pytest.raises(UserError, match=said) as caught:
        registry.read_task(str(tiny(**fields)))
    assert "\n" not in str(caught.value)
