"""What a method may keep of a task: how many examples, which, and the batches that are drawn from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from streams import CLASSES, Bench, images, load

from fipbench import registry
from fipbench.errors import UserError
from fipbench.tracks.common import generator_for
from fipbench.training import Examples

KEEPERS = [
    name
    for name, target in registry.find_methods("continual").items()
    if "memory" in registry.load_factory(target).fipbench.defaults
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir)


def kept(bench, method="replay", memory=10, learn=None, **job):
    """What `remember` gives for each task, as (images, labels)."""
    found = []

    def keep(model, experience, trial):
        examples = trial.remember(experience)
        assert trial.remember(experience) is examples
        found.append((images(examples.inputs), examples.labels.numpy()))

    bench.run(keep, method=method, memory=memory, **job)
    return found


def same(a, b):
    return all(np.array_equal(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("memory", [1, 4, 7, 10, 200])
def test_exactly_so_many_of_the_tasks_own_training_examples(memory, bench):
    for (x, y), own in zip(kept(bench, memory=memory), CLASSES, strict=True):
        train = {(row.tobytes(), label) for row, label in zip(*bench.part("train", own), strict=True)}
        assert len(y) == len(x) == memory
        pairs = [(row.tobytes(), label) for row, label in zip(x, y, strict=True)]
        assert set(pairs) <= train and len(set(pairs)) == memory


@pytest.mark.parametrize("memory", [1, 2, 4, 7, 10])
def test_the_classes_are_kept_alike(memory, bench):
    for (_, y), own in zip(kept(bench, memory=memory), CLASSES, strict=True):
        first, second = (int((y == label).sum()) for label in own)
        assert first + second == memory and abs(first - second) <= 1


def test_a_class_with_few_examples_gives_all_and_the_other_makes_up(bench):
    whole = []
    for memory in (200, 230):
        (x, y), *_ = kept(bench, memory=memory)
        train = bench.part("train", CLASSES[0])[1]
        fewer = min(int((train == label).sum()) for label in (0, 1))
        counts = sorted(int((y == label).sum()) for label in (0, 1))
        assert counts == [min(fewer, memory // 2), memory - min(fewer, memory // 2)]
        whole.append(len({row.tobytes() for row in x}))
    assert whole == [200, 230]


def test_a_smaller_memory_is_the_beginning_of_a_larger(bench):
    large = kept(bench, memory=200)
    for memory in (1, 4, 10, 50):
        assert same(kept(bench, memory=memory), [(x[:memory], y[:memory]) for x, y in large])


def test_it_is_drawn_and_not_the_head_of_the_data(bench):
    for (x, _), own in zip(kept(bench, memory=50), CLASSES, strict=True):
        order = [row.tobytes() for row in bench.part("train", own)[0]]
        positions = np.array([order.index(row.tobytes()) for row in x])
        assert 0.35 < positions.mean() / len(order) < 0.65


def test_tasks_keep_examples_of_their_own_choice(tmp_path, cache_dir):
    """Permuted tasks hold the same images in the same order; a memory should not hold one image in several ways."""
    bench = Bench(
        tmp_path, cache_dir, stream='{ permutations = 3, score = ["domain"] }', headline='"average_accuracy/domain"'
    )
    chosen = [{np.sort(row).tobytes() for row in x} for x, _ in kept(bench, memory=10)]
    assert all(len(chosen[i] & chosen[j]) < 3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_every_method_of_a_seed_keeps_the_same(bench):
    first = kept(bench)
    for name in KEEPERS:
        assert same(kept(bench, name), first), name
    assert {"replay", "der", "der++", "fip", "fip-paper", "fip-authors-code"} <= set(KEEPERS)
    assert not same(kept(bench, seed=1), first)


def test_what_a_method_did_before_does_not_decide_what_is_kept(bench):
    """Nor whether it asked for the earlier tasks at all."""
    found = []

    def keep(model, experience, trial):
        trial.fit(model, experience, learning_rate=0.01)
        torch.rand(1, generator=trial.generator)
        if experience.number == 2:
            examples = trial.remember(experience)
            found.append((images(examples.inputs), examples.labels.numpy()))

    bench.run(keep, method="replay", memory=10)
    assert same(found, kept(bench)[2:])


def test_what_is_kept_is_a_copy(bench):
    """A view would lead to all of the task's data."""

    def look(model, experience, trial):
        for value in trial.remember(experience):
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
            value.zero_()
        assert int(experience.train.inputs.sum()) > 0

    bench.run(look, method="replay", memory=10)


def test_a_method_without_a_memory_gets_none(bench):
    def look(model, experience, trial):
        assert trial.memory == 0 and len(trial.remember(experience).labels) == 0

    assert bench.run(look, method="naive").examples_stored == 0


def test_a_memory_larger_than_the_data_names_field_and_remedy(bench):
    with pytest.raises(UserError, match=r"^field 'memories': 233 examples a task, but task 1 .* has 232; lower it$"):
        kept(bench, memory=233)
    with pytest.raises(UserError, match=r"^field 'memories': 242 examples a task, but task 3 .* has 241; lower it$"):
        bench.run(lambda m, e, trial: trial.remember(e) and None if e.number == 2 else None, method="fip", memory=242)
    record = bench.record(bench.job("fip", memory=500))
    assert (record.status, record.error.type) == ("failed", "UserError") and "'memories'" in record.error.message


def test_what_is_stored_is_on_the_record(bench):
    for memory in (4, 10):
        assert bench.run(load("replay", memory=memory), method="replay", memory=memory).examples_stored == 3 * memory


# ------------------------------------------------------------------------------------------------------ draws


def drawn(bench, sizes, **job):
    """Positions in each batch drawn from memories of these sizes, one after the other."""
    found = []

    def draw(model, experience, trial):
        if experience.number:
            return
        for size in sizes:
            rows = torch.arange(size * 64, dtype=torch.uint8).reshape(size, 1, 8, 8)
            batch = trial.draw(Examples(rows, torch.arange(size)))
            assert torch.equal(batch.labels, batch.positions)
            assert np.allclose(images(batch.inputs), images(rows)[batch.positions.numpy()], atol=1e-7)
            found.append(batch.positions.tolist())

    bench.run(draw, method="replay", memory=4, **job)
    return found


def test_a_draw_is_as_large_as_a_batch_or_all_there_is(bench):
    for size, positions in zip((40, 16, 5), drawn(bench, (40, 16, 5)), strict=True):
        assert len(positions) == len(set(positions)) == min(size, 16)
        assert set(positions) <= set(range(size))


def test_draws_are_random_and_alike_for_every_method_of_a_seed(bench):
    first = drawn(bench, [40] * 400)
    assert len({tuple(sorted(one)) for one in first}) == 400
    counts = np.bincount(np.concatenate(first), minlength=40)
    assert abs(counts - 160).max() < 50  # each is in 16 of 40 draws: 160 of 400, deviation 10
    assert drawn(bench, [40] * 3) == first[:3]
    order = generator_for(bench.job(), "batches from memory")
    assert first[0] == torch.randperm(40, generator=order)[:16].tolist()
    assert drawn(bench, [40] * 3, seed=1) != first[:3]
