"""What docs/geometry.md shows works as it stands there, and it names what there is."""

import re
from pathlib import Path

import torch
from geometry import batch, small_net

from fipbench.fip import metric

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "geometry.md").read_text(encoding="utf-8")


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
