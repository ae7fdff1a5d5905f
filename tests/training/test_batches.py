"""The stream of batches: every example once an epoch, reproducible, scaled."""

from itertools import chain, islice

import pytest
import torch

from fipbench.training import Examples, stream


def examples(n):
    return Examples(torch.arange(n, dtype=torch.float32)[:, None], torch.arange(n))


def epochs(n, batch_size, count, seed=0):
    source = stream(examples(n), batch_size, torch.Generator().manual_seed(seed))
    return [[batch.positions.tolist() for batch in islice(source, n // batch_size)] for _ in range(count)]


def test_every_example_once_an_epoch_in_a_new_order():
    first, second = ([i for batch in epoch for i in batch] for epoch in epochs(24, 6, 2))
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second and first != sorted(first)


def test_the_last_incomplete_batch_is_left_out():
    found = epochs(23, 5, 3)
    for epoch in found:
        assert [len(batch) for batch in epoch] == [5, 5, 5, 5]
        assert len({i for batch in epoch for i in batch}) == 20
    left = [set(range(23)) - {i for batch in epoch for i in batch} for epoch in found]
    assert left[0] != left[1], "always the same examples would never be seen"


def test_the_order_is_torchs_permutation_of_the_generator():
    expected = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    assert [i for batch in epochs(20, 4, 1, seed=5)[0] for i in batch] == expected.tolist()


def test_reproducible_by_the_generator_alone():
    torch.manual_seed(1)
    first = epochs(30, 4, 2, seed=7)
    torch.manual_seed(2)
    at = torch.get_rng_state()
    assert epochs(30, 4, 2, seed=7) == first != epochs(30, 4, 2, seed=8)
    assert torch.equal(torch.get_rng_state(), at)


def test_rows_belong_together():
    for batch in islice(stream(examples(30), 7, torch.Generator().manual_seed(0)), 20):
        assert torch.equal(batch.inputs[:, 0].long(), batch.positions)
        assert torch.equal(batch.labels, batch.positions)


def test_a_batch_may_be_all_there_is_and_no_more():
    assert sorted(epochs(5, 5, 1)[0][0]) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="a batch of 6 needs as many examples, there are 5"):
        next(stream(examples(5), 6, torch.Generator()))


def test_bytes_are_scaled_to_the_unit_interval_and_floats_are_not():
    images = torch.tensor([[0, 51, 255], [1, 2, 3]], dtype=torch.uint8)
    labels = torch.tensor([4, 5])
    batch = Examples(images, labels).batch(torch.tensor([0]))
    assert batch.inputs.dtype == torch.float32
    torch.testing.assert_close(batch.inputs, torch.tensor([[0.0, 0.2, 1.0]]))
    assert batch.labels.tolist() == [4] and batch.positions.tolist() == [0]
    assert images[0].tolist() == [0, 51, 255], "the data itself was changed"
    floats = Examples(images.float(), labels).batch(torch.tensor([1, 0]))
    assert floats.inputs.tolist() == [[1.0, 2.0, 3.0], [0.0, 51.0, 255.0]]


# ------------------------------------------------------------------------------------------- of like length

BATCH, MANY = 4, 24


def lengths_of(n, seed=0):
    return torch.randint(1, 500, (n,), generator=torch.Generator().manual_seed(seed))


def grouped(n, count=1, seed=0):
    """Positions by batch and epoch."""
    source = stream(examples(n), BATCH, torch.Generator().manual_seed(seed), lengths_of(n))
    return [[batch.positions.tolist() for batch in islice(source, n // BATCH)] for _ in range(count)]


def test_grouped_every_example_comes_once_an_epoch():
    first, second = grouped(MANY, 2)
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(MANY))
    assert first != second
    left = [set(range(MANY + 3)) - set(chain(*epoch)) for epoch in grouped(MANY + 3, 6)]
    assert all(len(one) == 3 for one in left) and len(set.union(*left)) > 3, "not always the same are left out"
    longest = lengths_of(MANY + 3).argsort()[-3:].tolist()
    assert any(one != set(longest) for one in left), "nor always the longest"


def test_within_a_pool_batches_are_runs_of_the_sorted_examples():
    lengths = lengths_of(MANY)
    [epoch] = grouped(MANY)
    runs = [sorted(lengths[batch].tolist()) for batch in epoch]
    assert list(chain(*sorted(runs))) == sorted(lengths.tolist())
    assert runs != sorted(runs), "the batches come in a random order"


def test_pools_are_stretches_of_the_random_order(monkeypatch):
    monkeypatch.setattr("fipbench.data.batches.POOL", 3)
    [epoch] = grouped(MANY, seed=5)
    order = torch.randperm(MANY, generator=torch.Generator().manual_seed(5)).tolist()
    pools = [set(order[:12]), set(order[12:])]
    assert [sum(set(batch) <= pool for batch in epoch) for pool in pools] == [3, 3]
    of_first = [set(batch) <= pools[0] for batch in epoch]
    assert of_first not in ([True] * 3 + [False] * 3, [False] * 3 + [True] * 3), "pools do not come one by one"


def test_grouped_batches_are_the_generators_alone():
    torch.manual_seed(1)
    first = grouped(MANY, 2, seed=7)
    torch.manual_seed(2)
    assert grouped(MANY, 2, seed=7) == first != grouped(MANY, 2, seed=8)
