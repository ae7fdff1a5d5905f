"""FIP-Sparse's steps against gradients by hand, and the walk that they make."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from sparse_walks import LEVELS, QUICK, assert_equal_results, batches, cnn, mlp, normal, results, same, state, watched
from torch import nn

from fipbench import fip, pruning

# --- one step, by hand

LINEAR = {"steps": 2, "distance": "squared_euclidean", "reduction": "mean", "learning_rate": 1e-3}


class Linear:
    """y = W x + b with targets that it does not meet, in double precision; all gradients in NumPy."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(6, 4).double()
        self.x, self.t = normal(5, 6, dtype=torch.float64), normal(5, 4, seed=1, dtype=torch.float64)
        self.w, self.b = (p.detach().numpy().copy() for p in (self.model.weight, self.model.bias))
        small = np.argsort(np.abs(self.w).ravel(), kind="stable")[:12]
        self.w_p = self.w.copy()
        self.w_p.ravel()[small] = 0.0

    def objective(self, w, b, attraction, strength, reduction="mean"):
        off = ((self.x.numpy() @ w.T + b - self.t.numpy()) ** 2).sum(1)
        length = np.sqrt(((w - self.w_p) ** 2).sum())
        pull = 0.5 * length**2 if attraction == "squared" else length
        return (off.mean() if reduction == "mean" else off.sum()) + strength * pull

    def gradient(self, *args):
        """Central finite differences of the objective, w_p held constant."""
        out = []
        for which in (0, 1):
            point = [self.w.copy(), self.b.copy()]
            g = np.zeros_like(point[which])
            for i in np.ndindex(g.shape):
                ends = []
                for h in (1e-6, -1e-6):
                    moved = [p.copy() for p in point]
                    moved[which][i] += h
                    ends.append(self.objective(*moved, *args))
                g[i] = (ends[0] - ends[1]) / 2e-6
            out.append(g)
        return out

    def step(self, **options):
        seen, _ = watched(self.model, inputs=self.x, wanted=self.t, **(LINEAR | options))
        return [seen[1][name].numpy() - start for name, start in (("weight", self.w), ("bias", self.b))]


@pytest.mark.parametrize("attraction", ["squared", "norm"])
@pytest.mark.parametrize("strength", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_of_sgd_goes_down_the_objectives_gradient(attraction, strength, reduction):
    case = Linear()
    moved = case.step(optimizer="sgd", attraction=attraction, strength=strength, reduction=reduction)
    expected = case.gradient(attraction, strength, reduction)
    for got, g in zip(moved, expected, strict=True):
        np.testing.assert_allclose(got, -1e-3 * g, rtol=1e-5, atol=1e-10)


def test_a_step_of_sgd_equals_the_gradient_on_paper():
    """d/dW of the mean of |W x + b - t|^2 is 2/B sum (W x + b - t) x', and of half |W - W_p|^2 it is W - W_p."""
    case = Linear()
    x, error = case.x.numpy(), case.x.numpy() @ case.w.T + case.b - case.t.numpy()
    weight, bias = case.step(optimizer="sgd", attraction="squared", strength=0.7)
    np.testing.assert_allclose(weight, -1e-3 * (2 / 5 * error.T @ x + 0.7 * (case.w - case.w_p)), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(bias, -1e-3 * 2 / 5 * error.sum(0), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("attraction", ["squared", "norm"])
@pytest.mark.parametrize("learning_rate", [1e-3, 0.2])
def test_a_unit_step_has_the_learning_rates_length_along_the_gradient(attraction, learning_rate):
    case = Linear()
    moved = case.step(optimizer="unit", attraction=attraction, strength=0.5, learning_rate=learning_rate)
    flat, g = (np.concatenate([v.ravel() for v in pair]) for pair in (moved, case.gradient(attraction, 0.5)))
    assert np.linalg.norm(flat) == pytest.approx(learning_rate, rel=1e-12)
    np.testing.assert_allclose(flat, -learning_rate * g / np.linalg.norm(g), rtol=1e-5, atol=1e-10)


def test_every_unit_step_has_that_length():
    model, x = mlp(), normal(8, 7)
    seen, _ = watched(model, inputs=x, wanted=model(x).detach(), steps=9, optimizer="unit", learning_rate=0.02)
    lengths = [fip.distance_walked(a, b) for a, b in pairwise(seen)]
    assert lengths == pytest.approx([0.02] * 8, rel=1e-5)


def test_adam_and_momentum_are_torchs_own():
    for rule, make in {
        "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
        "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    }.items():
        case = Linear()
        seen, _ = watched(
            case.model, inputs=case.x, wanted=case.t, **(LINEAR | {"steps": 6}), optimizer=rule, attraction="squared"
        )
        twin = copy.deepcopy(case.model)
        optimizer = make(twin.parameters())
        for step in range(5):
            masks = pruning.magnitude_masks({"weight": twin.weight}, 0.5)
            optimizer.zero_grad()
            off = twin.weight - (twin.weight * masks["weight"]).detach()
            loss = (twin(case.x) - case.t).square().sum(1).mean() + 0.5 * off.square().sum()
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(seen[step + 1]["weight"], twin.weight.detach(), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(seen[step + 1]["bias"], twin.bias.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["bhattacharyya", "euclidean", "jensen_shannon", "kl"])
def test_every_distance_is_what_is_walked_down(name):
    """One small step without attraction lowers the distance by learning rate times squared gradient."""
    case = Linear()
    seen, _ = watched(
        case.model,
        inputs=case.x,
        wanted=case.t,
        steps=2,
        distance=name,
        strength=0.0,
        optimizer="sgd",
        learning_rate=1e-6,
    )
    model = copy.deepcopy(case.model)
    value = fip.distance.DISTANCES[name](model(case.x), case.t)
    value.backward()
    squared = sum(float(p.grad.square().sum()) for p in model.parameters())
    model.load_state_dict(seen[1])
    fall = float((value - fip.distance.DISTANCES[name](model(case.x), case.t)).detach())
    assert fall == pytest.approx(1e-6 * squared, rel=1e-3)


def test_epsilon_is_that_of_the_distance():
    case = Linear()
    options = {"distance": "bhattacharyya", "strength": 0.0, "optimizer": "sgd"}
    weight, _ = case.step(epsilon=0.05, **options)
    model = copy.deepcopy(case.model)
    fip.distance.bhattacharyya(model(case.x), case.t, epsilon=0.05).backward()
    np.testing.assert_allclose(weight, -1e-3 * model.weight.grad.numpy(), rtol=1e-9, atol=1e-14)
    assert np.abs(weight - case.step(**options)[0]).max() > 1e-6


# --- the walk


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_at_great_strength_w_reaches_w_p(scope):
    model, x = mlp(), normal(8, 7)
    options = {"optimizer": "sgd", "attraction": "squared", "strength": 1e5, "learning_rate": 1e-6, "steps": 200}
    seen, network = watched(model, inputs=x, wanted=model(x).detach(), level=0.8, scope=scope, **options)
    masks = pruning.magnitude_masks(pruning.prunable(model), 0.8, scope=scope)
    one_shot = pruning.apply(copy.deepcopy(model), masks)
    # The last call is before the projection: the walk itself has arrived.
    assert (
        fip.distance_walked(seen[-1], dict(one_shot.named_parameters())) < 1e-3 < fip.distance_walked(model, one_shot)
    )
    assert fip.distance_walked(network, one_shot) < 1e-3


def test_without_strength_nothing_moves_until_the_projection():
    """At w_dense the distance and its gradient are zero, by whichever distance."""
    model, x = mlp(), normal(8, 7)
    one_shot = pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(pruning.prunable(model), 0.8))
    for name in fip.distance.DISTANCES:
        ((_, network),) = fip.sparsify(model, [x], [0.8], distance=name, strength=0.0, steps=5, settle=0.0)
        assert same(state(network), state(one_shot)), name


def test_ramp_raises_the_target_cubically():
    expected = [0.8 - 0.8 * (1 - min(t / 10, 1.0)) ** 3 for t in range(20)] + [0.8]
    assert targets_of([0.8], steps=20, ramp=0.5) == pytest.approx(expected)


def targets_of(levels, **options):
    """Every sparsity at which w_p is drawn, in their order."""
    drawn = []
    original = pruning.magnitude_masks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "magnitude_masks", lambda w, s, **k: drawn.append(s) or original(w, s, **k))
        results(mlp(), batches(8, 7), levels, **({"steps": 4, "settle": 0.0} | options))
    return drawn


def test_a_ramp_begins_where_the_last_level_ended():
    def ramp(a, b):
        return [b + (a - b) * (1 - t / 4) ** 3 for t in range(4)] + [b]

    assert targets_of([0.5, 0.9], ramp=1.0) == pytest.approx(ramp(0, 0.5) + ramp(0.5, 0.9))
    assert targets_of([0.5, 0.9], ramp=1.0, start="dense") == pytest.approx(ramp(0, 0.5) + ramp(0, 0.9))


@pytest.mark.parametrize("settle", [0.0, 0.5])
def test_by_layer_every_layer_has_its_share(settle):
    # A first layer of small weights, of which ranking all together would leave nothing.
    model = mlp()
    model[0].weight.data.mul_(1e-3)
    for scope, emptied in (("layer", False), ("global", True)):
        for level, network in fip.sparsify(model, batches(8, 7), [0.5], scope=scope, settle=settle, steps=12):
            shares = [float((w == 0).double().mean()) for w in pruning.prunable(network).values()]
            assert (shares[0] > 0.7) == emptied
            if scope == "layer":
                off = [s - level for s in shares]
                assert all(abs(o) < 1 / w.numel() for o, w in zip(off, pruning.prunable(model).values(), strict=True))


def test_settle_keeps_zeros_exactly_and_walks_on_the_sparse_hyperplane():
    model, x = mlp(), normal(32, 7)
    wanted = model(x).detach()
    for optimizer in ("adam", "sgd", "unit"):
        seen, network = watched(
            model, inputs=x, wanted=wanted, level=0.6, steps=40, settle=0.75, optimizer=optimizer, learning_rate=3e-3
        )
        assert len(seen) == 40
        names = list(pruning.prunable(model))
        zeros = {name: seen[10][name] == 0 for name in names}
        assert sum(int(z.sum()) for z in zeros.values()) == pruning.zeros_at(0.6, 235)
        assert sum(int((seen[9][name] == 0).sum()) for name in names) == 0
        for later in [*seen[11:], dict(network.named_parameters())]:
            assert all(torch.equal(later[name] == 0, zeros[name]) for name in names)
        landed = copy.deepcopy(model)
        landed.load_state_dict(seen[10])
        before, after = (float(fip.distance.bhattacharyya(m(x).detach(), wanted)) for m in (landed, network))
        assert after < before
    assert not torch.equal(network[0].weight, landed[0].weight)


def test_levels_from_dense_do_not_depend_on_earlier_ones():
    data = batches(8, 7, n=3)  # QUICK's 12 steps begin each level at the first batch
    alone = results(mlp(), data, [0.95], start="dense", **QUICK)
    after = results(mlp(), data, LEVELS, start="dense", **QUICK)
    assert_equal_results(alone, after[-1:])
    onward = results(mlp(), data, LEVELS, start="previous", **QUICK)
    assert not same(onward[-1][1], after[-1][1])
    assert_equal_results(onward[:1], after[:1])


def test_levels_from_dense_reset_batch_norm_statistics_too():
    data = batches(6, 1, 8, 8, n=3)
    alone = results(cnn().train(), data, [0.95], start="dense", **QUICK)
    after = results(cnn().train(), data, LEVELS, start="dense", **QUICK)
    # The dense network's own outputs are by batch statistics, so the frozen copy's running ones do not matter.
    assert_equal_results(alone, after[-1:])


def test_tolerance_ends_a_level_early():
    model, x = mlp(), normal(8, 7)

    def calls(tolerance, **options):
        options = {"steps": 30, "optimizer": "unit", "learning_rate": 0.05} | options
        return len(watched(model, inputs=x, wanted=model(x).detach(), tolerance=tolerance, **options)[0])

    assert calls(0.0) == calls(1e-9) == 30
    assert calls(1e9) == 1
    off = fip.distance_walked(
        model, pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(pruning.prunable(model), 0.5))
    )
    assert calls(off * 1.001) == 1 < calls(off * 0.999) < 30
    # Not before the target is the full one, and not by a w_p of an earlier target.
    assert calls(1e9, ramp=0.5) == 16
    assert calls(off * 0.5, ramp=0.5, project_every=1000, strength=0.0) == 30


def test_project_every_keeps_w_p_between():
    # At steps 0, 4 and 8, and for the last projection.
    assert targets_of([0.5], steps=10, project_every=4) == [0.5] * 4


def test_a_reference_that_is_known_equals_the_frozen_copy():
    model, data = mlp(), batches(8, 7)
    asked = []

    def reference(batch):
        asked.append(batch)
        with torch.no_grad():
            return model(batch)

    known = results(model, data, LEVELS, reference=reference, **QUICK)
    assert_equal_results(known, results(model, data, LEVELS, **QUICK))
    assert len(asked) == 12 * len(LEVELS)


def test_tuples_give_their_first_entry_and_forward_replaces_it():
    data = batches(8, 7)
    plain = results(mlp(), data, LEVELS, **QUICK)
    assert_equal_results(results(mlp(), [(x, "label") for x in data], LEVELS, **QUICK), plain)
    assert_equal_results(results(mlp(), [[x, None] for x in data], LEVELS, **QUICK), plain)
    dicts = [{"x": x} for x in data]
    assert_equal_results(results(mlp(), dicts, LEVELS, forward=lambda m, b: m(b["x"]), **QUICK), plain)


@pytest.mark.parametrize("preset", list(fip.PRESETS))
def test_presets_run_and_keep_the_count(preset):
    walk = fip.sparsify(mlp(), batches(8, 7), LEVELS, steps=10, **fip.PRESETS[preset])
    assert [pruning.zeros(network)[0] for _, network in walk] == [pruning.zeros_at(s, 235) for s in LEVELS]


def test_the_authors_preset_takes_steps_of_one_hundredth():
    model, x = mlp(), normal(8, 7)
    seen, _ = watched(model, inputs=x, wanted=model(x).detach(), steps=4, **fip.PRESETS["authors-code"])
    assert fip.distance_walked(seen[0], seen[1]) == pytest.approx(0.01, rel=1e-5)
    assert fip.distance_walked(seen[0], dict(model.named_parameters())) == 0.0
