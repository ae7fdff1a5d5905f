"""The stream of batches: every example once an epoch, reproducible, scaled."""

from itertools import islice

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
