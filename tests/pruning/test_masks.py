"""Masks against a stable argsort in NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fipbench import pruning


def by_argsort(values, count):
    mask = np.zeros(len(values), dtype=bool)
    mask[np.argsort(values, kind="stable")[:count]] = True
    return mask


def inputs(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "normal": lambda: np.abs(rng.normal(size=n)),
        "heavy": lambda: np.abs(rng.standard_cauchy(size=n)) ** 3,
        "tied": lambda: rng.integers(0, 7, n),
        "two": lambda: rng.integers(0, 2, n),
        "constant": lambda: np.full(n, 0.25),
        "zeros": lambda: np.abs(rng.normal(size=n)) * (rng.random(n) < 0.1),
        "rising": lambda: np.arange(n),
        "falling": lambda: np.arange(n)[::-1],
        # What a regular sample of one in every few entries sees is not what there is.
        "periodic": lambda: np.where(np.arange(n) % (max(1, n // 50_000)) == 0, 1e6 + np.arange(n), np.arange(n)),
        "spike": lambda: np.where(np.arange(n) == n // 3, 1e30, 1.0),
        "denormal": lambda: rng.integers(0, 1000, n) * 1e-42,
    }[kind]().astype(np.float32)


KINDS = ["normal", "heavy", "tied", "two", "constant", "zeros", "rising", "falling", "periodic", "spike", "denormal"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_smallest_equals_a_stable_argsort(kind, n):
    values = inputs(kind, n)
    for count in sorted({0, 1, n // 3, n // 2, n - 1, n} & set(range(n + 1))):
        mask = pruning.smallest(torch.from_numpy(values), count)
        assert mask.dtype == torch.bool and mask.shape == (n,)
        np.testing.assert_array_equal(mask.numpy(), by_argsort(values, count))


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_of_many_equals_a_stable_argsort(kind):
    """Above 100,000 entries the threshold is found from a sample."""
    n = 250_007
    values = inputs(kind, n, seed=1)
    order = np.argsort(values, kind="stable")
    for count in (1, 7, n // 20, n // 2, round(0.9 * n), round(0.994 * n), n - 1):
        expected = np.zeros(n, dtype=bool)
        expected[order[:count]] = True
        np.testing.assert_array_equal(pruning.smallest(torch.from_numpy(values), count).numpy(), expected)


@pytest.mark.parametrize("kind", ["normal", "two"])
def test_smallest_of_two_million(kind):
    n, count = 2_000_000, 1_900_000
    values = inputs(kind, n, seed=2)
    np.testing.assert_array_equal(pruning.smallest(torch.from_numpy(values), count).numpy(), by_argsort(values, count))


@pytest.mark.parametrize("n", [1000, 250_007])
def test_what_is_not_a_number_ranks_last(n):
    values = inputs("normal", n)
    values[::3] = np.nan
    for count in (1, n // 3, round(0.66 * n)):
        np.testing.assert_array_equal(
            pruning.smallest(torch.from_numpy(values), count).numpy(), by_argsort(values, count)
        )


@pytest.mark.parametrize("count", [-1, 6])
def test_smallest_refuses_a_count_outside(count):
    with pytest.raises(ValueError, match="between 0 and 5"):
        pruning.smallest(torch.rand(5), count)


@pytest.mark.parametrize("total", [1, 3, 10, 1000, 266_200, 11_164_352])
def test_zeros_at_rounds_to_the_nearest_halves_up(total):
    for sparsity in (0.1, 0.2, 0.25, 0.5, 0.67, 0.75, 0.89, 0.96, 0.987, 0.99, 0.991, 0.994):
        exact = Fraction(str(sparsity)) * total
        assert pruning.zeros_at(sparsity, total) == int(exact + Fraction(1, 2)), sparsity


def test_zeros_at_by_hand():
    assert [pruning.zeros_at(0.5, n) for n in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert pruning.zeros_at(0.0, 10) == 0 and pruning.zeros_at(1.0, 10) == 10
    assert pruning.zeros_at(0.994, 266_200) == 264_603  # 1,597 remain, as published


def weights(seed=0, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def counts(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_global_masks_equal_one_argsort_over_all(sparsity):
    w = weights(a=(20, 30), b=(7, 3, 3), c=(50,))
    masks = pruning.magnitude_masks(w, sparsity)
    flat = np.concatenate([np.abs(v.numpy().ravel()) for v in w.values()])
    got = np.concatenate([~m.numpy().ravel() for m in masks.values()])
    np.testing.assert_array_equal(got, by_argsort(flat, pruning.zeros_at(sparsity, len(flat))))
    assert {name: mask.shape for name, mask in masks.items()} == {name: v.shape for name, v in w.items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.85, 0.987])
def test_layer_masks_rank_each_tensor_and_share_out_the_whole_count(sparsity):
    w = weights(a=(3, 1), b=(3,), c=(5, 7), d=(1,), e=(11, 9), f=(2, 2))
    masks = pruning.magnitude_masks(w, sparsity, scope="layer")
    total = sum(v.numel() for v in w.values())
    assert sum(counts(masks).values()) == pruning.zeros_at(sparsity, total)
    for name, v in w.items():
        out = counts(masks)[name]
        assert abs(out - sparsity * v.numel()) < 1
        expected = by_argsort(v.abs().numpy().ravel(), out)
        np.testing.assert_array_equal(~masks[name].numpy().ravel(), expected)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_masks_leave_the_weights_alone(scope):
    w = weights(a=(20, 30))
    keep = {"a": torch.arange(600).view(20, 30) > 100}
    before, kept = w["a"].clone(), keep["a"].clone()
    pruning.magnitude_masks(w, 0.5, scope=scope)
    pruning.magnitude_masks(w, 0.5, keep=keep, scope=scope)
    assert torch.equal(w["a"], before) and torch.equal(keep["a"], kept)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_what_keep_leaves_out_stays_out_and_counts(scope):
    w = weights(a=(20, 30), b=(10, 10))
    # The largest are out already: magnitude alone would bring them back.
    keep = {name: ~pruning.smallest(-v.abs().flatten(), v.numel() // 4).view_as(v) for name, v in w.items()}
    masks = pruning.magnitude_masks(w, 0.5, keep=keep, scope=scope)
    assert sum(counts(masks).values()) == 350
    for name in w:
        assert not (masks[name] & ~keep[name]).any()
        extra = (~masks[name] & keep[name]).flatten()
        left = w[name].abs().flatten()
        if scope == "layer":
            assert left[extra].max() <= left[masks[name].flatten()].min()
    assert all(torch.equal(m, keep[n]) for n, m in pruning.magnitude_masks(w, 0.25, keep=keep).items())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_keep_that_leaves_out_too_much_is_refused(scope):
    w = weights(a=(10, 10), b=(10, 10))
    keep = {name: torch.arange(100).view(10, 10) >= 60 for name in w}
    with pytest.raises(ValueError, match="already leave out more than 50"):
        pruning.magnitude_masks(w, 0.5, keep=keep, scope=scope)


def test_keep_that_leaves_out_too_much_of_one_layer_is_refused_by_layer():
    w = weights(a=(10, 10), b=(10, 10))
    keep = {"a": torch.zeros(10, 10, dtype=torch.bool), "b": torch.ones(10, 10, dtype=torch.bool)}
    with pytest.raises(ValueError, match="already leave out more"):
        pruning.magnitude_masks(w, 0.6, keep=keep, scope="layer")
    assert counts(pruning.magnitude_masks(w, 0.6, keep=keep)) == {"a": 100, "b": 20}


def test_masks_errors():
    with pytest.raises(ValueError, match="'global' or 'layer', got 'channel'"):
        pruning.magnitude_masks(weights(a=(2, 2)), 0.5, scope="channel")
    for scope in ("global", "layer"):
        with pytest.raises(ValueError, match="no weights"):
            pruning.magnitude_masks({}, 0.5, scope=scope)


def test_random_masks_count_seed_and_evenness():
    w = weights(a=(100, 100), b=(100, 200))
    first, again, other = (pruning.random_masks(w, 0.9, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert sum(counts(first).values()) == 27_000
    assert all(torch.equal(first[n], again[n]) for n in w)
    assert not all(torch.equal(first[n], other[n]) for n in w)
    # Binomial with a standard deviation of 26: five of them.
    assert abs(counts(first)["a"] - 9000) < 130
    # It does not matter how large a weight is.
    kept = w["b"].abs()[first["b"]]
    assert float(kept.mean()) == pytest.approx(float(w["b"].abs().mean()), abs=0.07)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_ramp_equals_zhu_and_gupta(fraction):
    steps, start, end = 40, 0.2, 0.95
    length = fraction * steps
    values = [pruning.ramp(step, steps, start, end, fraction) for step in range(steps)]
    for step, value in enumerate(values):
        expected = end + (start - end) * (1 - min(step / length, 1.0)) ** 3
        assert value == pytest.approx(expected, abs=1e-12)
    assert values[0] == pytest.approx(start, abs=1e-12)
    assert values == sorted(values)
    assert all(v == end for step, v in enumerate(values) if step >= length)


def test_ramp_of_no_steps_is_its_end():
    assert [pruning.ramp(step, 10, 0.1, 0.8, 0.0) for step in range(10)] == [0.8] * 10
