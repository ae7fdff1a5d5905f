"""Examples that are said beforehand against what the meter of a real job counted, and the rest of an estimate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fipbench import api, plan, registry, worker
from fipbench.estimate import devices, fits, total
from fipbench.estimate.rehearsal import made_up, rehearse, smaller
from fipbench.estimate.work import cap_of, parts_of, probes, sizes_of, work
from fipbench.spec import Model, Ticket
from fipbench.training import Meter

STREAM = {
    "track": '"continual"',
    "stream": '{ classes = [[0, 1], [2, 3], [4, 5]], score = ["class", "task"] }',
    "budget": "{ epochs = 2, batch_size = 16, factor = 4 }",
    "base": "{ epochs = 3, batch_size = 16, learning_rate = 0.05, snapshots = [0] }",
    "memories": "[4]",
    "headline": '"average_accuracy/class"',
    "sparsities": "",
}
VOTE = {
    "track": '"robustness"',
    "model": '{ name = "cnn", inputs = [1, 8, 8], channels = [4, 8], hidden = [8], outputs = 10 }',
    "budget": "{ epochs = 6, batch_size = 32 }",
    "members": "3",
    "attack": "{ epsilons = [0.1], steps = 1, restarts = 1, apgd_steps = 2, items = 20 }",
    "headline": '"robust@0.1"',
    "sparsities": "",
}
BOTH = {
    "track": '"composition"',
    "data": '["digits", "digits"]',
    "model": '{ name = "mlp", inputs = [1, 8, 8], hidden = [16], outputs = 20, mean = 0.305, std = 0.376 }',
    "budget": "{ epochs = 2, batch_size = 32 }",
    "memory": "64",
    "repeat": "0.5",
    "headline": '"average_accuracy"',
}
TRACKS = {
    "composition": (BOTH, "naive,finetune-magnitude,fip,replay-gradual"),
    "sparsity": ({"budget": "{ epochs = 9, batch_size = 32 }"}, "dense,magnitude-finetune,gradual-distill"),
    "continual": (STREAM, "joint,naive,replay,lwf,ewc,gem,fip"),
    "robustness": (VOTE, "single,deep-ensemble,fip"),
}


def rehearsed(task, row, train, model=None):
    factory = registry.load_factory(row.method.target)
    memory, role = int(row.params.get("memory", 0)), row.method.role
    return rehearse(task, lambda: factory(**row.params), memory, role, train, model or task.model, float("inf"))


@pytest.mark.parametrize("track", TRACKS)
def test_examples_are_those_that_a_real_job_counts(tiny, cache_dir, track):
    """Exactly on the continual track. On the others a method fills its budget up to whole steps of its phases, which
    a rehearsal of fewer examples rounds otherwise: within a tenth."""
    fields, methods = TRACKS[track]
    file = tiny(**fields)
    tickets = plan.tickets(api.request(str(file), methods=methods.split(","), seeds=1))
    records = {ticket.job.label: worker.run(ticket, lambda event: None) for ticket in tickets}
    task = registry.read_task(str(file))
    due = work(task, sizes_of(task, cache_dir))
    rows = plan.task_rows(task, methods.split(","))
    assert {row.label for row in rows} == set(records) == set(methods.split(","))
    for row in rows:
        cost, role = records[row.label].cost, row.method.role
        if track != "continual" or role != "reference":
            assert cost.forward_examples + cost.backward_examples <= due.cap, row.label
        for model in (task.model, smaller(task.model)):
            spent = rehearsed(task, row, due.train, model)
            said = [due.base + spent.forward, due.base + spent.backward]
            bound = 0.1 if track != "continual" else 0.02 if role == "reference" else 1e-9
            assert said == pytest.approx([cost.forward_examples, cost.backward_examples], rel=bound), row.label


def test_what_is_done_once_a_task_is_told_from_what_is_done_each_step(tiny):
    """20,000 examples a task: LwF looks at all of them before each, EWC takes the Fisher information of 1,000."""
    task = registry.read_task(str(tiny(**STREAM)))
    rows = {row.label: row for row in plan.task_rows(task, ["naive", "lwf", "ewc"])}
    plain = 2 * 2 * 20_000  # two tasks after the first, two epochs each
    spent = {label: rehearsed(task, row, (20_000,) * 3) for label, row in rows.items()}
    assert (spent["naive"].forward, spent["naive"].backward) == (plain, plain)
    assert (spent["lwf"].forward, spent["lwf"].backward) == (plain + 2 * 20_000, plain)
    assert (spent["ewc"].forward, spent["ewc"].backward) == (plain + 3 * 1000, plain + 3 * 1000)


def test_cap_by_hand(tiny, cache_dir):
    """The digits: 1,200 and 597; of zeros to fives so many each as scikit-learn's file has."""
    sparse = registry.read_task(str(tiny()))
    assert cap_of(sparse, sizes_of(sparse, cache_dir)) == 2 * 3 * 1200
    stream = registry.read_task(str(tiny("stream", **STREAM)))
    sizes = sizes_of(stream, cache_dir)
    from sklearn.datasets import load_digits

    labels = torch.tensor(load_digits().target)
    together = [int(((labels == 2 * k) | (labels == 2 * k + 1)).sum()) for k in range(3)]
    train, test = parts_of(stream, sizes, "train"), parts_of(stream, sizes, "test")
    assert [a + b for a, b in zip(train, test, strict=True)] == together
    assert cap_of(stream, sizes) == 4 * 2 * (3 * train[0] + 2 * train[1] + 2 * train[2])


def test_harness_passes_are_those_that_it_makes(tiny, call, results, cache_dir, tmp_path, monkeypatch):
    """All examples through any network, counted at `nn.Module` itself, are the job's own and the harness's."""
    file = tiny(**STREAM)
    task = registry.read_task(str(file))
    due = work(task, sizes_of(task, cache_dir))
    # A cache of its own: nothing that jobs share is there yet.
    monkeypatch.setenv("FIPBENCH_CACHE", str(tmp_path / "cache"))
    seen = 0

    def count(module, args, output):
        nonlocal seen
        seen += len(args[0]) if isinstance(module, nn.Flatten) else 0

    request = api.request(str(file), methods=["naive"], seeds=1)
    (ticket,) = plan.tickets(request)
    handle = nn.modules.module.register_module_forward_hook(count)
    try:
        record = worker.run(ticket, lambda event: None)
    finally:
        handle.remove()
    assert record.status == "ok"
    assert seen - record.cost.forward_examples == due.harness_forward


def test_autoattack_is_in_the_harness_passes_by_hand(tiny, cache_dir):
    """At a radius 100 steps of APGD, 100 towards each of nine classes by APGD and FAB, 5,000 guesses; 3 members."""
    attack = "{ epsilons = [0.1, 0.2], steps = 1, restarts = 1, apgd_steps = 2, items = 20"
    plain = registry.read_task(str(tiny("plain", **{**VOTE, "attack": attack + " }"})))
    beside = registry.read_task(str(tiny("beside", **{**VOTE, "attack": attack + ", autoattack = 10 }"})))
    before, after = (work(task, sizes_of(task, cache_dir)) for task in (plain, beside))
    assert after.harness_backward - before.harness_backward == 10 * 3 * 2 * 1900
    assert after.harness_forward - before.harness_forward == 10 * 3 * 2 * (1900 + 5000)


def test_looks_at_a_learning_network():
    assert [probes(n) for n in (0, 1, 2, 4, 5, 6, 24)] == [1, 2, 3, 5, 5, 6, 10]


def test_made_up_examples_take_the_memory_of_one():
    examples = made_up(Model(name="mlp", inputs=(1, 1000), outputs=2), 10**9 // 1000, (4, 5))
    assert examples.inputs.shape == (10**6, 1, 1000) and examples.inputs.untyped_storage().nbytes() == 1000
    assert examples.labels[:4].tolist() == [4, 5, 4, 5]


def test_a_rehearsal_that_takes_too_long_is_stopped(tiny):
    from fipbench.estimate.rehearsal import TooLong, _meter

    meter = _meter(0.0)
    assert isinstance(meter, Meter)
    with pytest.raises(TooLong):
        meter.attach(nn.Linear(2, 2))(torch.zeros(1, 2))


def test_a_named_device_by_its_data_sheet(tiny, cache_dir):
    """A network large enough that FLOPs decide: a batch's FLOPs over 30 % of 67 TFLOPS."""
    file = tiny(model='{ name = "mlp", inputs = [1, 8, 8], hidden = [20000, 20000], outputs = 10 }')
    task = registry.read_task(str(file))
    (row,) = plan.task_rows(task, ["gradual"])
    found = total.estimate(task, [row], seeds=3, cache=cache_dir, device="h100-80", calibrated=False)
    forward = 2 * (64 * 20_000 + 20_000**2 + 20_000 * 10)
    flops = 3 * forward - 2 * 64 * 20_000
    # Three epochs of 1,200 digits; the dense network and two sparse ones are scored on 597.
    expected = (3600 * flops + 3 * 597 * forward) / (0.3 * 67e12)
    assert found.lines[0].seconds == pytest.approx(expected, rel=0.02)
    assert found.lines[0].known == "cap" and found.lines[0].flops == 3600 * flops
    assert not found.unfit


def test_what_cannot_fit_is_said(tiny, cache_dir):
    """Five billion weights: 20 GB, thrice with gradients and momentum, are too much for 24 GB and not for 80."""
    file = tiny(model='{ name = "mlp", inputs = [1, 8, 8], hidden = [70000, 70000], outputs = 10 }')
    task = registry.read_task(str(file))
    rows = plan.task_rows(task, ["gradual"])
    small, large = (
        total.estimate(task, rows, seeds=1, cache=cache_dir, device=name, calibrated=False)
        for name in ("rtx4090", "a100-80")
    )
    assert large.unfit == "" and "take 58.9 GB, a rtx4090 has 24.0 GB" in small.unfit


def test_run_refuses_what_cannot_fit(tiny, call, results):
    file = tiny(model='{ name = "mlp", inputs = [1, 8, 8], hidden = [900000, 900000], outputs = 10 }')
    error = call("run", file, "--methods", "magnitude", "--seeds", 1).error
    assert "task 'tiny'" in error and "this machine has" in error and "optimiser state take 9,7" in error
    assert not list(results.glob("*.json"))


def test_small_tasks_are_not_looked_at_twice(tiny, monkeypatch, results):
    """`run` counts nothing on the meta device for them."""
    monkeypatch.setattr("fipbench.estimate.counts.count_parameters", lambda spec: pytest.fail("counted"))
    tickets = plan.tickets(api.request(str(tiny()), seeds=1))
    assert all(isinstance(ticket, Ticket) for ticket in tickets)
    fits.check(tickets)


def test_estimate_from_the_command_line(tiny, call, results):
    answer = call("estimate", tiny(), "--methods", "gradual,magnitude", "--seeds", 2, "--no-calibrate")
    assert answer.code == 0 and not results.exists()
    (network,) = (line for line in answer.out.splitlines() if "parameters" in line)
    assert "1.21 k parameters" in network  # 64 x 16 + 16 + 16 x 10 + 10
    (gradual,) = (line for line in answer.out.splitlines() if line.split()[:1] == ["gradual"])
    assert gradual.split()[1:5] == ["3.6", "k", "3.6", "k"] and gradual.endswith("cap")
    assert "4 jobs" in answer.out and "nothing was run" in answer.out


def test_calibrated_from_the_command_line(tiny, call, results):
    answer = call("estimate", tiny(), "--methods", "magnitude", "--seeds", 1)
    assert answer.code == 0 and not results.exists()
    (line,) = (line for line in answer.out.splitlines() if line.split()[:1] == ["magnitude"])
    # It trains nothing beyond the base network, whose one epoch has 37 full batches of 32.
    assert line.split()[1:5] == ["1.18", "k", "1.18", "k"] and line.endswith("rehearsed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "h100"], "device"),
        (["--seeds", "0"], "--seeds"),
        (["--methods", "gradul"], "did you mean gradual"),
    ],
)
def test_mistakes(tiny, call, words, said):
    assert said in call("estimate", tiny(), "--no-calibrate", *words).error


def test_devices_have_what_they_are_named_for():
    for name, device in devices.DEVICES.items():
        assert device.name == name
        if name != "cpu" and "-" in name:
            assert device.memory_bytes == int(name.rpartition("-")[2]) * 10**9


def test_a_dry_run_says_the_cap(tiny, call):
    out = call("run", tiny(), "--methods", "gradual", "--seeds", 1, "--dry-run").out
    assert "at most 7,200 passes each" in out
    assert ", no cap" in call("run", tiny("stream", **STREAM), "--methods", "joint", "--seeds", 1, "--dry-run").out


def test_data_of_unknown_size(tiny, call, monkeypatch):
    monkeypatch.delenv("FIPBENCH_DATA", raising=False)
    file = tiny(data='{ repo = "nobody/nothing", variants = { some = { train = "0", test = "0" } } }')
    assert "nobody/nothing" in call("estimate", file, "--no-calibrate").error


@pytest.mark.parametrize(
    ("name", "train"),
    [("split-mnist-5", (60_000,)), ("splitcifar100-5x10-vitb", (50_000,)), ("yelp-imdb-bert", (650_000, 25_000))],
)
def test_sizes_of_releases_are_known_without_a_mirror_or_a_download(name, train, monkeypatch, tmp_path):
    monkeypatch.delenv("FIPBENCH_DATA", raising=False)
    sizes = sizes_of(registry.read_task(name), tmp_path)
    assert sizes is not None and tuple(size.train for size in sizes) == train


def test_outputs_that_methods_keep_are_in_the_memory(tiny, cache_dir):
    """The dense network's, of all training examples: four bytes each of ten outputs."""
    import msgspec

    from fipbench.estimate.counts import count

    task = registry.read_task(str(tiny()))
    small = work(task, sizes_of(task, cache_dir))
    large = msgspec.structs.replace(small, train=(small.train[0] + 10**6,))
    before, after = (total.working_bytes(task, count(task.model), due, 0) for due in (small, large))
    assert after - before == 4 * 10 * 10**6


def test_windows_of_a_corpus_are_not_said_to_the_last_one(call, monkeypatch, tmp_path):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = call("run", "bert-wikitext-sparsity", "--methods", "fip-paper", "--seeds", 1, "--dry-run").out
    # 2,088,628 words, 1.03 pieces a word, 126 pieces a window, ten epochs forward and backward.
    assert ", about 341,460 passes each" in out
