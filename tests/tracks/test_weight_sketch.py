"""The sketch of the way through weight space: against exact weights and known laws, and that it changes nothing."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from streams import Bench, Watched, load, write_stream
from torch.optim.optimizer import register_optimizer_step_post_hook

from fipbench import registry
from fipbench.errors import ProtocolError, UserError
from fipbench.tracks import continual, partial, sketch
from fipbench.tracks.sketch import Projection

D = 256
STEPS = (8, 15, 22)  # of 30, a quarter, half and three quarters of the way, the halves to even


def of(*parts):
    """Weights of two or more tensors."""
    return {f"layer{n}": torch.as_tensor(part, dtype=torch.float64) for n, part in enumerate(parts)}


def sketched(projection, weights):
    return projection({name: torch.zeros_like(value) for name, value in weights.items()}, weights)


# ----------------------------------------------------------------------------------------- the projection


def test_it_is_the_two_maps_written_out():
    """Buckets and signs from the generator's words, weight by weight: records of two releases share one map."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(3, 3)), rng.normal(size=2)]
    words = np.random.Philox(key=11)
    buckets = [0.0] * 4096
    for part in parts:
        flat = part.ravel()
        drawn = [int(word) for word in words.random_raw(math.ceil(len(flat) / 4))]
        for n, value in enumerate(flat):
            bits = drawn[n // 4] >> (16 * (n % 4)) & 0x1FFF
            buckets[bits % 4096] += -value if bits >= 4096 else value
    signs = [int(word) for word in np.random.Philox(key=11).jumped().random_raw(4096 * 5 // 64)]
    # Bits of each byte most significant first, bytes least significant first.
    bits = [word >> (8 * byte) >> (7 - bit) & 1 for word in signs for byte in range(8) for bit in range(8)]
    wanted = [sum(b * (2 * bits[5 * n + k] - 1) for n, b in enumerate(buckets)) / math.sqrt(5) for k in range(5)]
    assert sketched(Projection(5, 11), of(*parts)) == pytest.approx(wanted, abs=1e-12)


def test_it_is_linear_and_zero_where_nothing_moved():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 1000))
    take = Projection(32, 7)
    both = sketched(take, of((x + 2 * y)[:501], (x + 2 * y)[501:]))
    apart = sketched(take, of(x[:501], x[501:])) + 2 * sketched(take, of(y[:501], y[501:]))
    assert both == pytest.approx(apart, abs=1e-12)
    assert take(of(x[:501], x[501:]), of(y[:501], y[501:])) == pytest.approx(
        sketched(take, of((y - x)[:501], (y - x)[501:])), abs=1e-12
    )
    assert not take(of(x), of(x)).any()


def test_one_weight_keeps_its_length_exactly():
    x = np.zeros(77)
    for n in (0, 40, 76):
        x[n] = -3.0
        assert np.linalg.norm(sketched(Projection(32, 5), of(x))) == pytest.approx(3.0, rel=1e-12)
        x[n] = 0.0


def test_blocks_are_how_it_is_computed_and_no_more(monkeypatch):
    x = np.random.default_rng(2).normal(size=203)
    whole = sketched(Projection(16, 3), of(x))
    monkeypatch.setattr(sketch, "_BLOCK", 8)
    assert sketched(Projection(16, 3), of(x)) == pytest.approx(whole, abs=1e-12)


def test_squared_lengths_follow_chi_squared():
    """d || Sx ||^2 / || x ||^2 over maps, for many weights of like size; the buckets add little to the variance."""
    x = np.random.default_rng(3).normal(size=3000)
    found = np.array([np.sum(sketched(Projection(16, seed), of(x)) ** 2) / np.sum(x**2) for seed in range(300)])
    assert scipy.stats.kstest(16 * found, scipy.stats.chi2(16).cdf).pvalue > 0.01
    assert np.mean(found) == pytest.approx(1, abs=3 * math.sqrt(2 / 16 / 300))


def test_inner_products_are_right_on_average():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 400))
    maps = [Projection(64, seed) for seed in range(200)]
    found = [sketched(take, of(x)) @ sketched(take, of(y)) for take in maps]
    spread = math.sqrt((np.sum(x**2) * np.sum(y**2) + (x @ y) ** 2) / 64 / 200)
    assert np.mean(found) == pytest.approx(x @ y, abs=3 * spread)
    # One map for every pair would not be: of unlike seeds they are strangers.
    strangers = [sketched(a, of(x)) @ sketched(b, of(x)) / np.sum(x**2) for a, b in itertools.pairwise(maps)]
    assert abs(np.mean(strangers)) < 0.05


# ---------------------------------------------------------------------------------------------- the track


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("sketched"), cache_dir, sketch=f"{{ points = 4, dimensions = {D} }}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("plain"), cache_dir)


class Walked(Watched):
    """Beside the weights after each task those after every optimiser step, as float32 tensors."""

    def __call__(self, model, experience, trial):
        seen = []

        def stepped(rule, args, kwargs):
            network = self.network(model) if hasattr(self, "network") else model
            seen.append({name: value.detach().clone() for name, value in network.named_parameters()})

        handle = register_optimizer_step_post_hook(stepped)
        try:
            returned = super().__call__(model, experience, trial)
        finally:
            handle.remove()
        self.steps = [*getattr(self, "steps", []), seen]
        return returned


def points(outcome):
    """(task, coordinates) of each point."""
    curve = outcome.curves["sketch"]
    rows = np.array([curve[str(k)] for k in range(1, D + 1)]).T
    assert set(curve) == {"point", "task", *map(str, range(1, D + 1))}
    assert curve["point"] == list(range(len(rows)))
    return curve["task"], rows


def exact(walked):
    """The same points by all weights, in units of the first network's norm."""
    first = np.concatenate([value.ravel() for value in walked.ends[0].values()])
    found = [np.zeros_like(first)]
    for number in (1, 2):
        for step in STEPS:
            weights = [walked.steps[number][step - 1][name].double().numpy().ravel() for name in walked.ends[0]]
            found.append(np.concatenate(weights) - first)
        found.append(np.concatenate([value.ravel() for value in walked.ends[number].values()]) - first)
    return np.array(found) / np.linalg.norm(first)


@pytest.fixture(scope="module")
def walks(bench):
    found = {}
    for name, params in (
        ("naive", {"learning_rate": 0.05}),
        ("replay", {"memory": 10}),
        ("fip", {"memory": 10}),
        ("lora", {"rank": 2}),
    ):
        torch.manual_seed(0)
        walked = Walked(load(name, **params))
        memory = {key: value for key, value in params.items() if key == "memory"}
        found[name] = bench.run(walked, method=name, **memory), exact(walked)
    return found


@pytest.mark.parametrize("name", ["naive", "replay", "fip", "lora"])
def test_points_are_evenly_spread_and_begin_at_zero(name, walks):
    task, rows = points(walks[name][0])
    assert task == [1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert not rows[0].any() and all(row.any() for row in rows[1:])


def test_distances_within_and_between_methods_are_those_of_all_weights(walks):
    """Of squared distances, by the lemma: d >= (4 + 2 b) ln k / (e^2/2 - e^3/3) with b = 1, k = 33 has e = 0.48."""
    sketches = np.concatenate([points(outcome)[1] for outcome, _ in walks.values()])
    weights = np.concatenate([true for _, true in walks.values()])
    bound = 0.48
    assert (4 + 2) * math.log(33) / (bound**2 / 2 - bound**3 / 3) < D * 1.1
    ratios = []
    for a, b in itertools.combinations(range(len(weights)), 2):
        if true := np.sum((weights[a] - weights[b]) ** 2):
            ratios.append(np.sum((sketches[a] - sketches[b]) ** 2) / true)
    assert len(ratios) > 500
    assert max(abs(ratio - 1) for ratio in ratios) < bound
    # Another point's weights, or another step's, would not do.
    assert np.median([abs(ratio - 1) for ratio in ratios]) < 0.1


def test_lora_is_where_the_network_is_that_it_stands_for(walks):
    """A sketch of the weights without the adapters would keep all layers but the output's at the start."""
    outcome, true = walks["lora"]
    assert np.linalg.norm(points(outcome)[1][-1]) == pytest.approx(outcome.metrics["weights_walked"], rel=0.15)
    assert np.linalg.norm(true[-1]) == pytest.approx(outcome.metrics["weights_walked"], rel=1e-5)


def test_coordinates_have_four_digits(walks):
    rows = points(walks["naive"][0])[1]
    assert all(value == float(f"{value:.4g}") for value in rows.ravel())
    assert any(value != float(f"{value:.3g}") for value in rows.ravel())


@pytest.mark.parametrize("name", ["naive", "fip", "lora", "joint"])
def test_it_changes_no_other_number(name, bench, plain):
    memory = {"memory": 4} if name == "fip" else {}
    found = []
    for one in (bench, plain):
        torch.manual_seed(3)
        outcome = one.run(load(name, **memory), method=name, **memory)
        curves = {key: value for key, value in outcome.curves.items() if key != "sketch"}
        meter = outcome.meter.forward, outcome.meter.backward
        found.append((outcome.metrics, curves, outcome.items, outcome.notes, meter, float(torch.rand(1))))
    assert found[0] == found[1]
    assert "sketch" in bench.run(load("naive")).curves and "sketch" not in plain.run(load("naive")).curves


def test_the_map_is_the_task_s_and_not_the_method_s(bench):
    same = [bench.run(load("naive"), method=name).curves["sketch"] for name in ("naive", "ewc")]
    assert same[0] == same[1]


def test_weights_that_are_not_finite_are_refused():
    start = of(np.zeros(5))
    walk = sketch.Walk(Projection(4, 1), 2, start, 1.0)
    for bad in (math.nan, math.inf):
        with pytest.raises(ProtocolError, match="learning task 2 has weights that are not finite"):
            walk.add(2, of([0.0, bad, 1.0, 1.0, 1.0]))
    assert not walk.rows


def test_only_the_first_seed_on_the_test_split_has_one(bench):
    assert "sketch" not in bench.run(load("naive"), seed=1).curves
    assert "sketch" not in bench.run(load("naive"), split="validation").curves


def test_another_network_has_the_ends_of_its_tasks_alone(bench):
    def elsewhere(model, experience, trial):
        network = copy.deepcopy(model)
        trial.fit(network, experience, learning_rate=0.02)
        return network

    assert points(bench.run(elsewhere))[0] == [1, 2, 3]


def test_a_job_that_goes_on_has_the_points_of_before(tmp_path, monkeypatch):
    """As in `test_going_on`, of the sketch."""
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    bench = Bench(tmp_path, tmp_path / "cache", sketch="{ points = 3, dimensions = 16 }")
    made, begun, last = continual._experience, [], 3

    def experience(task, job, number, part):
        if number == last:
            raise KeyboardInterrupt
        begun.append(number)
        return made(task, job, number, part)

    monkeypatch.setattr(continual, "_experience", experience)
    whole = bench.run(load("fip", memory=4), method="fip", memory=4).curves["sketch"]
    last = 2
    with pytest.raises(KeyboardInterrupt):
        bench.run(load("fip", memory=4), method="fip", memory=4)
    last, begun = 3, []
    assert bench.run(load("fip", memory=4), method="fip", memory=4).curves["sketch"] == whole
    assert begun.count(2) == 1 and begun.count(1) <= 1  # (once, to remember its examples)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ("{ points = 4, dimensions = 0 }", "sketch.dimensions"),
        ("{ points = 4, dimensions = 1 }", "sketch.dimensions"),
        ("{ points = 4, dimensions = 1025 }", "sketch.dimensions"),
        ("{ points = 4, dimensions = 2.5 }", "sketch.dimensions"),
        ("{ points = 0, dimensions = 32 }", "sketch.points"),
        ("{ points = 4 }", "sketch"),
        ("{ points = 4, dimensions = 32, seed = 1 }", "sketch"),
        ("20", "sketch"),
    ],
)
def test_bad_fields_are_refused_in_a_line(asked, field, tmp_path):
    with pytest.raises(UserError, match=f"field '{field}'") as refused:
        registry.read_task(str(write_stream(tmp_path, sketch=asked)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", [0, 1])
def test_more_dimensions_than_weights_are_refused_in_a_line(seed, tmp_path, cache_dir):
    model = '{ name = "mlp", inputs = [1, 8, 8], hidden = [1], outputs = 10, mean = 0.305, std = 0.376 }'
    bench = Bench(tmp_path, cache_dir, model=model, sketch="{ points = 2, dimensions = 86 }")
    with pytest.raises(UserError, match=r"^task 'stream', field 'sketch.dimensions': 86, .* has 85 weights; lower it$"):
        bench.run(load("naive"), seed=seed)
