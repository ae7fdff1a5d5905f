"""torchvision imports beside a CPU-only torch, and with it the libraries that later tracks stand on."""

import subprocess
import sys

CODE = """
from fipbench.compat import import_torchvision
first = import_torchvision()
assert import_torchvision() is first
import torch, torchvision.transforms
assert torchvision.models.resnet18(num_classes=3).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
{more}
print("fine")
"""


def fine(more=""):
    done = subprocess.run([sys.executable, "-c", CODE.format(more=more)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("fine\n"), done.stderr


def test_torchvision_imports_and_runs_once_asked_for():
    fine()


def test_the_libraries_of_the_other_tracks_import():
    fine("import avalanche.training.plugins, open_clip, peft, torchattacks, transformers")


def test_an_error_of_another_kind_is_not_hidden():
    code = "import sys; sys.modules['torchvision'] = None\nfrom fipbench.compat import import_torchvision\n"
    done = subprocess.run([sys.executable, "-c", code + "import_torchvision()"], capture_output=True, text=True)
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr
