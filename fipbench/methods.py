"""What a method's author imports: one decorator a track, and the laws of a hyper-parameter search.

    @sparsity(version="1", search={"learning_rate": LogUniform(1e-4, 1e-1)})
    def my_method(*, learning_rate: float = 0.01):
        def prune(model, sparsities, trial):
            ...
            yield sparsity, pruned_model
        return prune

A decorator marks and checks; it registers nothing. An entry point (or `--plugin FILE.py`) names the object.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

TRACKS = ("composition", "connectivity", "continual", "robustness", "sparsity")


class LogUniform(msgspec.Struct, frozen=True, tag=True):
    """Uniform in the logarithm, between two positive bounds."""

    low: float
    high: float

    def suggest(self, name: str, trial: Any) -> float:
        """The value that an Optuna trial suggests, to three significant digits (a search is no more precise)."""
        return float(f"{trial.suggest_float(name, self.low, self.high, log=True):.3g}")

    def admits(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Uniform(msgspec.Struct, frozen=True, tag=True):
    """Uniform between two bounds."""

    low: float
    high: float

    def suggest(self, name: str, trial: Any) -> float:
        """The value that an Optuna trial suggests, to three significant digits."""
        return float(f"{trial.suggest_float(name, self.low, self.high):.3g}")

    def admits(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Choice(msgspec.Struct, frozen=True, tag=True):
    """One of the listed values, all equally likely."""

    values: tuple[bool | int | float | str, ...]

    def suggest(self, name: str, trial: Any) -> bool | int | float | str:
        """The value that an Optuna trial suggests."""
        return trial.suggest_categorical(name, self.values)

    def admits(self, value: object) -> bool:
        return value in self.values


Law = LogUniform | Uniform | Choice


class Mark(msgspec.Struct, frozen=True):
    """What a decorator leaves on a factory as `factory.fipbench`.

    `required`: parameters whose default is only of their type, and that a run has to set.
    """

    track: str
    version: str
    role: str
    settings: str
    search: dict[str, Law]
    defaults: dict[str, bool | int | float | str]
    summary: str
    required: tuple[str, ...] = ()


def _mark(factory: Any, track: str, version: str, role: str, settings: str, search: Mapping[str, Law] | None) -> Any:
    def decorate(factory: Any) -> Any:
        defaults: dict[str, Any] = {}
        for parameter in inspect.signature(factory).parameters.values():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise TypeError(
                    f"{factory.__name__}: parameter '{parameter.name}' must be keyword-only and have a default"
                )
            if not isinstance(parameter.default, bool | int | float | str):
                raise TypeError(f"{factory.__name__}: default of '{parameter.name}' must be a bool, int, float or str")
            defaults[parameter.name] = parameter.default
        for name, law in (search or {}).items():
            if name not in defaults:
                raise TypeError(f"{factory.__name__}: search names '{name}', which is no parameter")
            if not law.admits(defaults[name]):
                raise TypeError(f"{factory.__name__}: default {name}={defaults[name]!r} is outside its search")
        doc = inspect.getdoc(factory) or inspect.getdoc(inspect.getmodule(factory)) or ""
        summary = doc.strip().splitlines()[0] if doc.strip() else ""
        factory.fipbench = Mark(track, version, role, settings, dict(search or {}), defaults, summary)
        return factory

    return decorate if factory is None else decorate(factory)


def sparsity(
    factory: Any = None,
    /,
    *,
    version: str = "1",
    role: str = "method",
    settings: str = "default",
    search: Mapping[str, Law] | None = None,
) -> Any:
    """Mark a factory as a method of the sparsity track: `@sparsity`, or `@sparsity(...)` with more to say of it.

    The factory takes keyword-only, typed, defaulted hyper-parameters and returns
    `prune(model, sparsities, trial) -> Iterator[(sparsity, nn.Module)]`; see `fipbench.tracks.sparsity.Trial`. One that
    offers `state_dict()` and `load_state_dict(state)`, of tensors, goes on inside a stopped job after the last sparsity
    it yielded.
    `role="reference"` puts the method apart from the ranking; `settings="published"` says that its defaults are those
    of a publication. `search` maps parameters to their laws.

    Raises:
        TypeError: a parameter is not keyword-only, has no default or one of an unsupported type, or the
            search names no parameter or excludes its default.
    """
    return _mark(factory, "sparsity", version, role, settings, search)


def continual(
    factory: Any = None,
    /,
    *,
    version: str = "1",
    role: str = "method",
    settings: str = "default",
    search: Mapping[str, Law] | None = None,
) -> Any:
    """Mark a factory as a method of the continual track; arguments and errors as of `sparsity`.

    The factory returns `learn(model, experience, trial) -> nn.Module | None`, called once a task in order, or an
    Avalanche plugin; see `fipbench.tracks.continual`. It trains `model` in place, or returns another network to be
    scored; the next task's `model` is the same object either way. A factory with a parameter `memory` stores examples:
    it is run once for every memory that the task allows, and told the number of examples a task by that name. One that
    offers `state_dict()` and `load_state_dict(state)`, of tensors, goes on inside a stopped job; see
    `fipbench.tracks.partial`.
    """
    return _mark(factory, "continual", version, role, settings, search)


def robustness(
    factory: Any = None,
    /,
    *,
    version: str = "1",
    role: str = "method",
    settings: str = "default",
    search: Mapping[str, Law] | None = None,
) -> Any:
    """Mark a factory as a method of the robustness track; arguments and errors as of `sparsity`.

    The factory returns `members(model, trial) -> list[nn.Module]`, or a generator that yields the networks one by one;
    see `fipbench.tracks.robustness.Trial`. A generator that offers `state_dict()` and `load_state_dict(state)`, of
    tensors, goes on inside a stopped job after the last member it yielded.
    """
    return _mark(factory, "robustness", version, role, settings, search)


def composition(
    factory: Any = None,
    /,
    *,
    version: str = "1",
    role: str = "method",
    settings: str = "default",
    search: Mapping[str, Law] | None = None,
) -> Any:
    """Mark a factory as a method of the composition track; arguments and errors as of `sparsity`.

    The factory returns `operate(network, operation, trial) -> nn.Module`, called once for each operation of both
    orders; see `fipbench.tracks.composition`. It must hold nothing from one operation to the next, so that a stopped
    job can go on with any of them.
    """
    return _mark(factory, "composition", version, role, settings, search)


def connectivity(
    factory: Any = None,
    /,
    *,
    version: str = "1",
    role: str = "method",
    settings: str = "default",
    search: Mapping[str, Law] | None = None,
) -> Any:
    """Mark a factory as a method of the connectivity track; arguments and errors as of `sparsity`.

    The factory returns `path(first, second, trial) -> list[nn.Module]`, or a generator that yields the networks of a
    path from the first to the second; see `fipbench.tracks.connectivity`. A generator that offers `state_dict()` and
    `load_state_dict(state)`, of tensors, goes on inside a stopped job after the last network it yielded.
    """
    return _mark(factory, "connectivity", version, role, settings, search)
