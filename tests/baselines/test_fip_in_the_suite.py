"""The `fip` methods are the library and nothing else; the library is Algorithm 2, written here a second time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fipbench import fip, registry

LEVELS = (0.5, 0.9)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def defaults(name):
    return dict(registry.load_factory(registry.find_methods("sparsity")[name]).fipbench.defaults)


def library(dense, trial, levels=LEVELS, **options):
    wanted = trial.outputs(dense)
    return fip.sparsify(
        dense,
        trial.batches,
        levels,
        steps=trial.steps // len(levels),
        reference=lambda batch: wanted[batch.positions],
        **options,
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"ramp": 0.4, "settle": 0.3, "distance": "kl", "attraction": "squared", "strength": 0.01}, {"rule": "sgd"}],
)
def test_fip_is_the_library_with_the_same_options(options, method, new_trial, dense):
    asked = defaults("fip") | options
    asked["optimizer"] = asked.pop("rule")
    ours = method("fip", **options)(dense, LEVELS, new_trial(40))
    for (level, network), (wanted_level, wanted) in zip(ours, library(dense, new_trial(40), **asked), strict=True):
        assert level == wanted_level and same(network, wanted)


@pytest.mark.parametrize("preset", sorted(fip.PRESETS))
def test_the_published_readings_are_the_librarys_presets(preset, method, new_trial, dense):
    ours = method(f"fip-{preset}")(dense, LEVELS, new_trial(30))
    assert all(
        same(network, wanted)
        for (_, network), (_, wanted) in zip(ours, library(dense, new_trial(30), **fip.PRESETS[preset]), strict=True)
    )


def test_the_presets_are_what_was_published():
    """Methods, "Network sparsification, parameters used"; the public code's notebook and NGD."""
    paper, code = fip.PRESETS["paper"], fip.PRESETS["authors-code"]
    assert (paper["strength"], paper["learning_rate"], paper["optimizer"]) == (1.0, 0.01, "adam")
    assert (paper["attraction"], paper["reduction"], paper["settle"], paper["start"]) == ("norm", "mean", 0.0, "dense")
    assert (code["strength"], code["learning_rate"], code["optimizer"]) == (0.1, 0.01, "unit")
    assert (code["attraction"], code["reduction"], code["tolerance"]) == ("squared", "sum", 0.01)
    assert code["epsilon"] == 1e-10 and {paper["distance"], code["distance"]} == {"bhattacharyya"}


def test_the_defaults_of_the_method_and_of_the_library_are_one():
    import inspect

    library_defaults = {n: p.default for n, p in inspect.signature(fip.sparsify).parameters.items()}
    ours = defaults("fip")
    ours["optimizer"] = ours.pop("rule")
    assert {n: library_defaults[n] for n in ours} == ours


@pytest.mark.parametrize("preset", sorted(fip.PRESETS))
def test_the_library_walks_algorithm_2(preset, new_trial, dense):
    """Each level from the dense network: 12 steps written out, without masks, presets or the library's distances."""
    options, steps, rate = fip.PRESETS[preset], 12, 0.01
    walk = library(dense, new_trial(2 * steps), **options)
    trial = new_trial(2 * steps)
    for level, network in walk:
        w = copy.deepcopy(dense)
        names = [n for n, p in w.named_parameters() if p.ndim == 2]
        moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in w.named_parameters()}

        def smallest(w=w, names=names, level=level):
            flat = np.concatenate([w.get_parameter(n).detach().abs().numpy().ravel() for n in names])
            gone = np.zeros(flat.size, bool)
            gone[np.argsort(flat, kind="stable")[: int(level * flat.size + 0.5)]] = True
            sizes = np.cumsum([w.get_parameter(n).numel() for n in names])[:-1]
            return {
                n: torch.from_numpy(part).view_as(w.get_parameter(n))
                for n, part in zip(names, np.split(gone, sizes), strict=True)
            }

        for step in range(1, steps + 1):
            gone = smallest()
            batch = next(trial.batches)
            with torch.no_grad():
                q = dense(batch.inputs).double().softmax(1)
            p = w(batch.inputs).double().softmax(1)
            off = torch.cat([w.get_parameter(n)[gone[n]] for n in names])  # w - w_p, where it is not zero
            if preset == "paper":
                loss = -(p * q).sqrt().sum(1).log().mean() + 1.0 * off.norm()
            else:
                loss = -(p * q + 1e-10).sqrt().sum(1).log().sum() + 0.1 * off.square().sum() / 2
            gradients = dict(zip(moments, torch.autograd.grad(loss, list(w.parameters())), strict=True))
            length = torch.cat([g.flatten() for g in gradients.values()]).norm()
            with torch.no_grad():
                for n, p_ in w.named_parameters():
                    g = gradients[n]
                    if preset == "paper":  # Adam (0.9, 0.999)
                        first, second = moments[n]
                        first.mul_(0.9).add_(0.1 * g)
                        second.mul_(0.999).add_(0.001 * g * g)
                        p_ -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                    else:
                        p_ -= rate * g / length
        gone = smallest()
        for n, p_ in w.named_parameters():
            wanted = p_.detach() * ~gone[n] if n in gone else p_.detach()
            # Adam divides by the root of tiny gradients' squares, which tells rounding errors apart.
            close = torch.isclose(network.get_parameter(n), wanted, atol=2e-4, rtol=1e-3).double().mean()
            assert close > 0.995, (n, float(close))


def test_fip_needs_no_labels(method, new_trial, dense):
    def unlabelled(trial):
        return (batch._replace(labels=torch.zeros_like(batch.labels)) for batch in trial.batches)

    import dataclasses

    for name in ("fip", "fip-paper", "fip-authors-code"):
        plain = new_trial(20)
        blind = new_trial(20)
        blind = dataclasses.replace(blind, batches=unlabelled(blind))
        for (_, a), (_, b) in zip(method(name)(dense, LEVELS, plain), method(name)(dense, LEVELS, blind), strict=True):
            assert same(a, b)


def test_fip_pays_for_the_dense_outputs_once(method, new_trial, dense):
    """n examples forward for the reference, then one forward and one backward a step."""
    trial = new_trial(60)
    given = trial.meter.attach(copy.deepcopy(dense))
    list(method("fip")(given, LEVELS, trial))
    steps = (60 * 64 - 1200) // 64 // 2 * 2
    assert (trial.meter.forward, trial.meter.backward) == (1200 + 32 * steps, 32 * steps)


def test_settling_holds_the_zeros_and_nothing_else(method, new_trial, dense):
    """`settle` trains on the sparse hyperplane: the zeros are those of the projection, the rest moves on."""
    options = {"ramp": 0.0, "strength": 1.0}
    half, whole = new_trial(20), new_trial(40)
    [(_, projected)] = list(library(dense, half, (0.9,), **options, settle=0.0))
    [(_, settled)] = list(library(dense, whole, (0.9,), **options, settle=0.5))
    for a, b in zip(projected.parameters(), settled.parameters(), strict=True):
        if a.ndim == 2:
            assert torch.equal(a == 0, b == 0)
        assert not torch.equal(a, b)
