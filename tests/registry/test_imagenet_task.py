"""The ImageNet task as a file: what the papers, DeiT's own evaluation and the hub say of it, typed once more."""

from __future__ import annotations

import re
from functools import partial

import msgspec
import pytest

from fipbench import claims, plan, registry, stock

NAME = "deit-imagenet-sparsity"


@pytest.fixture
def task():
    return registry.read_task(NAME)


def test_deit_as_published(task):
    """The number printed is at 40 %, the claim of the curve at 80 %."""
    assert task.suites == ("paper",) and {0.4, 0.8} <= set(task.sparsities) and max(task.sparsities) == 0.8
    assert task.headline == "accuracy@0.4" and task.scores == ["accuracy"]
    model = task.model
    assert (model.pixels, model.patch, model.width, model.depth, model.heads) == (224, 16, 768, 12, 12)
    assert (model.name, model.weights, model.outputs) == ("vit", "facebook/deit-base-patch16-224", 1000)
    # A commit, since the branch has these weights as a pickle only.
    assert re.fullmatch("[0-9a-f]{40}", model.revision)
    # The network is the released one: trained no further, its own head kept.
    assert task.base.epochs == 0


def test_images_are_those_of_deits_own_evaluation(task):
    """The sizes and constants of Touvron et al.'s code are torchvision's for its own first weights, too."""
    from fipbench.compat import import_torchvision

    torchvision = import_torchvision()
    theirs = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert (task.data.streamed.resize, task.data.streamed.crop) == (theirs.resize_size[0], theirs.crop_size[0])
    assert (list(task.model.mean), list(task.model.std)) == (theirs.mean, theirs.std)


def test_the_hubs_release(task):
    data = task.data
    assert (data.repo, data.input, data.label, data.test) == ("ILSVRC/imagenet-1k", "image", "label", "validation")
    assert data.gated and data.variants == {} and re.fullmatch("[0-9a-f]{40}", data.revision)
    (entry,) = (e for e in stock.needed([task]) if e.name == "ILSVRC/imagenet-1k/default")
    assert entry.about.examples == {"train": 1_281_167, "test": 50_000}  # Russakovsky et al., 2015
    assert entry.about.licence == "research only" and "gated" in entry.about.note


def test_methods_have_the_settings_listed_for_the_other_transformer(task):
    rows = {row.label: row for row in plan.task_rows(task)}
    listed = {"learning_rate": 2e-5, "rule": "adam", "strength": 1.0, "ramp": 0.0, "settle": 0.0, "attraction": "norm"}
    assert rows["fip-paper"].params.items() >= listed.items()
    rates = {label: row.params["learning_rate"] for label, row in rows.items() if "learning_rate" in row.params}
    assert len(rates) >= 7 and max(rates.values()) <= 1e-4
    # An epoch for each sparsity, and one for the dense network's outputs.
    assert task.budget.epochs == len(task.sparsities) + 1


def test_the_ledger_names_the_command_for_each_row_that_a_record_can_settle():
    ledger = claims.load()
    rows = [claim for claim in ledger.claims.values() if claim.study == "deitb-imagenet-sparsity"]
    found = {judged.claim.id: judged for judged in claims.judge(ledger, [], rows)}
    verdicts = [judged.verdict for judged in found.values()]
    assert verdicts.count("not-run") == 9 and verdicts.count("not-testable") == 5
    assert found["nmi24-deitb-fip-sp40-acc"].command == f"fipbench run {NAME} --methods fip-paper --seeds 5"
    assert found["nmi24-deitb-dense-acc"].command == f"fipbench run {NAME} --methods dense --seeds 5"
    for row in ("nmi24-deitb-svit-sp40-acc", "v4-deitb-svit-sp40-acc"):
        assert found[row].command.startswith("no method yet: svite")


# ------------------------------------------------------------------------------------------- without the data


@pytest.fixture
def nothing_at_hand(tmp_path, monkeypatch):
    for name in ("FIPBENCH_DATA", "FIPBENCH_MODELS", "FIPBENCH_CACHE"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_dry_run_counts_its_jobs(call, nothing_at_hand):
    answer = call("run", NAME, "--methods", "fip-paper,dense", "--seeds", 2, "--dry-run")
    # Five epochs of 1,281,167 images, forward and backward.
    assert answer.code == 0 and f"at most {2 * 5 * 1_281_167:,} passes each" in answer.out
    assert "4 jobs, 4 to compute" in answer.out


def test_it_is_listed_with_its_size_licence_and_tasks(call, nothing_at_hand):
    said = call("data", "list", NAME)
    assert said.code == 0
    assert "ILSVRC/imagenet-1k/default\n    missing, 154.6 GB, 1,281,167 + 50,000 examples\n" in said.out
    assert "licence: research only" in said.out and said.out.count(f"    for {NAME}") == 2


def test_an_estimate_has_the_images_on_disk_and_not_in_memory(call, nothing_at_hand):
    from fipbench.cache import cache_dir
    from fipbench.estimate import total

    task = registry.read_task(NAME)
    rows = plan.task_rows(task, ["fip-paper", "dense"])
    found = total.estimate(task, rows, seeds=1, cache=cache_dir(), device="h200-141", calibrated=False)
    pixels = (1_281_167 + 50_000) * 3 * 224 * 224
    line = found.lines[0]
    assert found.data_bytes > 150e9 and line.memory_bytes < 40e9 < pixels
    # What the dense network says of each image: 1,000 numbers of four bytes.
    assert line.memory_bytes > 1_281_167 * 1000 * 4
    assert 86e6 < found.counts.parameters < 87e6 and not found.unfit
    # Decoding counts: it takes one thread longer than the task's own.
    alone = msgspec.structs.replace(task, threads=1)
    slower = total.estimate(alone, rows, seeds=1, cache=cache_dir(), device="h200-141", calibrated=False)
    images = line.forward_examples + found.work.harness_forward
    assert slower.lines[0].seconds - line.seconds == pytest.approx(images * total.DECODING_S * (1 - 1 / task.threads))


def test_methods_are_rehearsed_on_a_small_network_of_the_kind(task, nothing_at_hand):
    """No weights are asked for."""
    from fipbench import models
    from fipbench.estimate.rehearsal import rehearse, smaller

    small = smaller(task.model)
    assert sum(p.numel() for p in models.build(small, 0).parameters()) < 30_000
    (row,) = plan.task_rows(task, ["lth"])
    make = partial(registry.load_factory(row.method.target), **row.params)
    spent = rehearse(task, make, 0, row.method.role, (640,), small, float("inf"))
    assert 0.9 * 2 * 5 * 640 < spent.forward + spent.backward <= 2 * 5 * 640 * (1 + 1e-9)
