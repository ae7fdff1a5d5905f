"""What docs/geometry.md shows works as it stands there, and it names what there is."""

import inspect
import re
from pathlib import Path

import torch
from geometry import batch, small_net

from fipbench.fip import metric
from fipbench.fip.geo import geo

WHOLE = (Path(__file__).resolve().parents[2] / "docs" / "geometry.md").read_text(encoding="utf-8")
PAGE, _, WALKS = WHOLE.partition("## Geo: ")


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {"network": small_net(dtype=torch.float32), "inputs": batch(5, dtype=torch.float32)}
    exec(code, names)
    g, safe = names["g"], names["safe"]
    # Three probabilities sum to one, so each example gives rank two.
    assert f"{51 - 10} of 51 directions" in capsys.readouterr().out
    assert g.squared_speed(safe) < 1e-6 * g.squared_speed(names["v"])
    assert names["step"].residual < 1e-3


def test_the_table_names_functions_that_there_are():
    named = re.findall(r"`([a-z_A-Z.]+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE)))
    assert len(named) == 13
    for name in named:
        owner, _, last = name.rpartition(".")
        assert hasattr(metric.Metric if owner else metric, last) or hasattr(metric.Metric, last), name


def test_the_walk_of_the_example_runs():
    code = re.findall(r"```python\n(.*?)```", WALKS, flags=re.DOTALL)[0]
    first, second = (small_net(seed, dtype=torch.float32) for seed in (0, 1))
    names = {"first": first, "second": second, "batches": [batch(3, dtype=torch.float32)]}
    exec(code, names)
    assert names["path"].stopped in ("reached", "steps", "oscillation")
    assert torch.equal(names["path"].points[0], torch.nn.utils.parameters_to_vector(first.parameters()).detach())


def test_the_open_choices_name_the_defaults_that_there_are():
    options = inspect.signature(geo).parameters
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+) \| ([^|]+) \|$", WALKS, flags=re.MULTILINE)
    said = {names.split("`")[1]: default for names, default in rows}
    assert {"beta", "refresh", "inputs", "space", "reach", "window"} <= set(said) <= set(options)
    assert (options["beta"].default, options["eta"].default) == (1.0, 0.1) and said["beta"].startswith("1, 0.1 ")
    assert (options["window"].default, options["tolerance"].default) == (10, 0.01) and said["window"] == "10, 0.01"
    assert options["refresh"].default == 1 and options["reach"].default is None and options["space"].default == "logits"
