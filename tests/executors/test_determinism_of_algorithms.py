"""What has no deterministic form raises on a CPU, and is named on a GPU: driven here by an operation of the CPU."""

import warnings

import pytest
import torch

from fipbench.determinism import deterministic


@pytest.fixture(autouse=True)
def _as_it_was():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def put():
    """The one operation of a CPU that torch calls not deterministic."""
    return torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0]), accumulate=False)


def test_on_a_cpu_it_is_an_error():
    with deterministic("cpu") as found, pytest.raises(RuntimeError, match="put_ does not have a deterministic"):
        put()
    assert not found


def test_on_a_gpu_it_is_named_once_and_other_warnings_pass():
    with pytest.warns(UserWarning, match="something else") as heard:
        with deterministic("cuda") as found:
            put()
            put()
            warnings.warn("something else", stacklevel=1)
            (torch.ones(3, requires_grad=True) * 2).sum().backward()
        assert found == {"put_"}
    assert len(heard) == 1
    again = []
    with deterministic("cuda") as found:
        again.append(put())
    assert found == {"put_"}, "a warning that was shown before is noted again"
