"""The composition track against numpy: what is handed out, how operations are chained, what the measures are."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from streams import images, logits, one_thread, softmax

from fipbench import api, data, plan, pruning, registry, worker
from fipbench.errors import BudgetExceeded, ProtocolError, UserError
from fipbench.reports import boards
from fipbench.reports.tracks import composition as board_of
from fipbench.spec import Method, equal
from fipbench.tracks import composition, partial
from fipbench.tracks.composition_plan import cap_of, steps_of

TINY = """
title   = "A tiny composition on the real digits"
track   = "composition"
suites  = ["quick"]
version = 1
data    = ["digits", "digits"]
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [12], outputs = 20, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05 }
budget  = { epochs = 1, batch_size = 32 }
memory     = 30
subset     = 320
sparsities = [0.25, 0.5]
repeat     = 0.5
validation = 300
headline   = "average_accuracy"
"""
NAMES = ["cl", "cl-co@0.25", "co@0.25", "co-cl@0.25", "cl-co@0.5", "co@0.5", "co-cl@0.5"]
NAMES += ["again/cl", "again/cl-co@0.5", "again/co@0.5", "again/co-cl@0.5"]


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def written(folder, **fields):
    text = TINY
    for name, value in fields.items():
        text = (
            "".join(line for line in text.splitlines(True) if not line.startswith(f"{name} ")) + f"{name} = {value}\n"
        )
    (folder / "tiny.toml").write_text(text)
    return str(folder / "tiny.toml")


@pytest.fixture
def task(tmp_path):
    return registry.read_task(written(tmp_path))


def job_of(task, cache, seed=0, split="test"):
    variant, digests = data.identify_all(task.sources, cache)
    method = Method(name="none", track="composition", target="none:none", version="1", defaults={})
    row = plan.Row(label="none", method=method, params={}, settings="default")
    return plan.make_job(task, row, seed, "quick", "cpu", variant, digests, split)


def run(task, cache, method, **more):
    return composition.run(task, job_of(task, cache, **more), method, cache, lambda text, share: None)


class Watcher:
    """A method that costs nothing: CL moves every weight a little, Co cuts the smallest. It notes what it sees."""

    def __init__(self, stop=None):
        self.seen, self.stop = [], stop

    def __call__(self, network, operation, trial):
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt
        given = {name: value.detach().numpy().copy() for name, value in network.named_parameters()}
        if operation.kind == "co":
            weights = pruning.prunable(network)
            pruning.apply(network, pruning.magnitude_masks(weights, operation.sparsity))
        else:
            with torch.no_grad():
                for value in network.parameters():
                    value.add_(0.05 * torch.randn(value.shape, generator=trial.generator))
        left = {name: value.detach().numpy().copy() for name, value in network.named_parameters()}
        memory = operation.memory
        labels = None if memory is None else memory.labels.tolist()
        first = next(operation.batches).positions.tolist()
        self.seen.append((given, left, operation, labels, trial.meter.limit, first))
        return network


@pytest.fixture
def watched(task, cache_dir):
    watcher = Watcher()
    return watcher, run(task, cache_dir, watcher)


def test_operations_are_chained_in_both_orders(task, watched):
    watcher, _ = watched
    assert [step.name for step in steps_of(task)] == NAMES
    given = {name: one[0] for name, one in zip(NAMES, watcher.seen, strict=True)}
    left = {name: one[1] for name, one in zip(NAMES, watcher.seen, strict=True)}
    starts = {"cl-co@0.25": "cl", "co-cl@0.25": "co@0.25", "cl-co@0.5": "cl", "co-cl@0.5": "co@0.5"}
    starts |= {"again/cl-co@0.5": "again/cl", "again/co-cl@0.5": "again/co@0.5"}
    for name in NAMES:
        wanted = left[starts[name]] if name in starts else given["cl"]
        assert all(np.array_equal(given[name][key], value) for key, value in wanted.items()), name
    kinds = [(one[2].kind, one[2].sparsity) for one in watcher.seen[:4]]
    assert kinds == [("cl", 0.0), ("co", 0.25), ("co", 0.25), ("cl", 0.25)]


def test_past_data_are_a_memory_and_data_in_hand_are_whole(watched):
    watcher, outcome = watched
    for name, (_, _, operation, kept, limit, _) in zip(NAMES, watcher.seen, strict=True):
        labels = set(operation.train.labels.tolist())
        assert limit == 2 * 320
        if name.removeprefix("again/").startswith("co@"):
            assert labels == set(range(10)) and kept is None, name
        else:
            assert labels == set(range(10, 20)), name
            assert sorted(kept) == sorted(list(range(10)) * 3), name  # 30, the classes in turn
    assert outcome.examples_stored == 30


def test_every_operation_draws_its_own_order(watched, task, cache_dir):
    watcher, _ = watched
    orders = [tuple(one[5]) for one in watcher.seen]
    assert len(set(orders)) == len(orders)
    again = Watcher()
    run(task, cache_dir, again)
    assert [tuple(one[5]) for one in again.seen] == orders


def test_the_measures_are_numpys(task, cache_dir, watched):
    watcher, outcome = watched
    left = {name: one[1] for name, one in zip(NAMES, watcher.seen, strict=True)}
    base = watcher.seen[0][0]
    examples = data.load(task.sources[0], "test", cache_dir, job_of(task, cache_dir).data["test-1"])
    x = images(examples.inputs)
    y = examples.labels.numpy()
    flat = {name: np.concatenate([v.ravel().astype(float) for v in w.values()]) for name, w in left.items()}
    norm = np.linalg.norm(np.concatenate([v.ravel().astype(float) for v in base.values()]))

    def predicted(weights):
        return logits(weights, x).argmax(1)

    found = outcome.metrics
    for name in ("cl-co@0.5", "co-cl@0.25"):
        order, _, place = name.partition("@")
        for number in (1, 2):
            right = (predicted(left[name]) == y + 10 * (number - 1)).mean()
            assert found[f"accuracy/{order}/{number}@{place}"] == pytest.approx(right, abs=1e-9)
    assert found["sparsity/cl-co@0.5"] == pytest.approx(0.5, abs=1e-3) and found["sparsity/co-cl@0.5"] == 0.0

    # What has lost its zeros is cut back to them, by magnitude over both matrices.
    rights = []
    for order in ("cl-co", "co-cl"):
        for place in ("0.25", "0.5"):
            weights = copy.deepcopy(left[f"{order}@{place}"])
            matrices = [value for value in weights.values() if value.ndim == 2]
            edge = np.sort(np.abs(np.concatenate([m.ravel() for m in matrices])))[round(float(place) * 1008) - 1]
            for matrix in matrices:
                matrix[np.abs(matrix) <= edge] = 0
            rights.append([(predicted(weights) == y + off).mean() for off in (0, 10)])
    assert found["average_accuracy"] == pytest.approx(np.mean(rights), abs=2e-3)
    assert found["average_accuracy/co-cl"] == pytest.approx(np.mean(rights[2:]), abs=2e-3)

    def squared(a, b):
        p, q = (softmax(logits(left[name], x).astype(float)) for name in (a, b))
        hellinger = 0.5 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(1).mean()
        unlike = (p.argmax(1) != q.argmax(1)).mean()
        return np.array([(np.linalg.norm(flat[a] - flat[b]) / norm) ** 2, hellinger, unlike])

    cross = [squared(f"{a}cl-co@0.5", f"{b}co-cl@0.5") for a in ("", "again/") for b in ("", "again/")]
    within = [squared(f"{order}@0.5", f"again/{order}@0.5") for order in ("cl-co", "co-cl")]
    between, noise = np.mean(cross, axis=0), np.mean(within, axis=0)
    for n, kind in enumerate(("weights", "outputs", "disagreement")):
        root = (lambda value: value) if kind == "disagreement" else math.sqrt
        assert found[f"commutator/{kind}@0.5"] == pytest.approx(root(between[n]), rel=1e-4)
        assert found[f"noise/{kind}@0.5"] == pytest.approx(root(noise[n]), rel=1e-4)
        assert found[f"excess/{kind}@0.5"] == pytest.approx(between[n] - noise[n], rel=1e-2, abs=1e-6)
    only = squared("cl-co@0.25", "co-cl@0.25")
    assert found["commutator/weights@0.25"] == pytest.approx(math.sqrt(only[0]), rel=1e-4)
    assert "noise/weights@0.25" not in found


def test_perplexity_is_that_of_an_orders_best_network(task, cache_dir, watched):
    watcher, outcome = watched
    left = {name: one[1] for name, one in zip(NAMES, watcher.seen, strict=True)}
    examples = data.load(task.sources[1], "test", cache_dir, job_of(task, cache_dir).data["test-2"])
    x = images(examples.inputs)
    rows = np.arange(len(x)), examples.labels.numpy() + 10
    each = [np.exp(-np.log(softmax(logits(left[f"co-cl@{s}"], x).astype(float))[rows]).mean()) for s in ("0.25", "0.5")]
    assert outcome.metrics["perplexity/co-cl/2"] == pytest.approx(min(each), rel=1e-4)


def test_operations_that_commute_have_no_excess():
    """Over many draws: two orders that differ by noise alone have an excess of zero in the mean, and else the square of
    what they differ by."""
    drawing = np.random.default_rng(0)
    for shift in (0.0, 0.5):
        found = []
        for _ in range(2000):
            a, b = drawing.normal(size=(2, 8)), shift / math.sqrt(8) + drawing.normal(size=(2, 8))
            between = np.mean([((x - y) ** 2).sum() for x in a for y in b])
            within = np.mean([((pair[0] - pair[1]) ** 2).sum() for pair in (a, b)])
            found.append(between - within)
        error = np.std(found) / math.sqrt(len(found))
        assert abs(np.mean(found) - shift**2) < 3.5 * error


def test_a_stopped_job_goes_on_with_the_next_operation(task, cache_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    whole = run(task, cache_dir, Watcher(), seed=1)
    with pytest.raises(KeyboardInterrupt):
        run(task, cache_dir, Watcher(stop=6), seed=1)
    rest = Watcher()
    found = run(task, cache_dir, rest, seed=1)
    assert len(rest.seen) == 5
    for field in ("metrics", "curves", "items", "examples_stored", "parameters_stored"):
        assert getattr(found, field) == getattr(whole, field), field
    assert (found.meter.forward, found.meter.backward) == (whole.meter.forward, whole.meter.backward)
    assert not list((cache_dir / "partial").glob("tiny--none--s1-*"))


def _same(network, operation, trial):
    return network


def _other(network, operation, trial):
    return torch.nn.Linear(64, 20)


def _over(network, operation, trial):
    for _ in range(3):
        trial.outputs(network, operation.train)
    trial.meter.limit = 10**9
    return network


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        (_same, ProtocolError, "the network after cl-co@0.25 has 0 zeros among 1008, not 252"),
        (_other, ProtocolError, "other parameters than the base network"),
        (lambda *given: None, ProtocolError, "expected a network after cl, got NoneType"),
        (_over, BudgetExceeded, "640 passes"),
    ],
)
def test_what_breaks_the_contract_is_refused(method, error, words, task, cache_dir):
    with pytest.raises(error, match=words):
        run(task, cache_dir, method)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"repeat": "0.3"}, r"field 'repeat': expected one of the sparsities \(0.25, 0.5\)"),
        ({"sparsities": "[0.5, 0.25]"}, "field 'sparsities': expected strictly increasing fractions"),
        ({"data": '"digits"'}, "field 'data': a composition task has two data sets"),
        ({"headline": '"area"'}, "unknown metric 'area'"),
        ({"memory": "0"}, "field 'memory'"),
    ],
)
def test_a_task_that_cannot_be_is_refused(fields, words, tmp_path):
    with pytest.raises(UserError, match=words):
        registry.read_task(written(tmp_path, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory": "321"}, "field 'memory': 321, but the first data set has 320 training examples; lower it"),
        (
            {"model": '{ name = "mlp", inputs = [1, 8, 8], outputs = 19 }'},
            "field 'model.outputs': the data sets have 20 classes together, the network 19 outputs",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(fields, words, tmp_path, cache_dir):
    with pytest.raises(UserError, match=words):
        run(registry.read_task(written(tmp_path, **fields)), cache_dir, Watcher())


def test_records_make_a_board(tmp_path):
    tickets = plan.tickets(api.request(written(tmp_path), methods=["naive", "fip", "finetune-magnitude"], seeds=2))
    records = [worker.run(ticket, lambda event: None) for ticket in tickets]
    assert [record.error for record in records] == [None] * 6
    task = registry.read_task(str(tmp_path / "tiny.toml"))
    for record in records:
        spent = record.cost.forward_examples + record.cost.backward_examples
        assert spent <= cap_of(task, (320, 320))
        strata = board_of.items(record, "average_accuracy")
        assert np.mean([one.mean() for one in strata]) == pytest.approx(record.metrics["average_accuracy"])
        if record.job.method != "naive":  # (what it has lost of its zeros is its own affair)
            assert record.metrics["sparsity/co-cl@0.5"] == 0.5
    [board] = boards(records)
    tables = board_of.tables(board)
    assert [len(table.rows) for table in tables] == [3, 3, 3, 3]
    own = {record.job.seed: record for record in records if record.job.method == "fip"}
    mean = 100 * (own[0].metrics["accuracy/co-cl/2@0.5"] + own[1].metrics["accuracy/co-cl/2@0.5"]) / 2
    column = tables[1].columns.index("Co, then CL: data 2, 50 %")
    [row] = [row for row in tables[1].rows if row[1].startswith("fip")]
    assert row[column].startswith(f"{mean:.2f} ±")
    assert board.test_examples == 2 * 597
    assert "fip's orders end apart by weights" in board_of.sentence(board)
    [drawing] = board_of.drawings(board)
    assert "finetune-magnitude, Co, then CL" in drawing.svg
    again = worker.run(tickets[2], lambda event: None)
    assert equal(again, records[2])
