"""FIP-CF (Nature Machine Intelligence 6, 2024, Algorithm 1): learn a task along a path that keeps old outputs.

Each step goes down the gradient of cross-entropy(new batch) + strength * distance(f(memory, w), f(memory, w_start)),
w_start being the network before the task; its outputs on the memory are computed once a task. `fip` has its settings
from the common search, `fip-paper` and `fip-authors-code` are the two published readings, and `fip-logits`, `fip-kl`
and `fip-bhattacharyya` fix the distance (labels in place of outputs is `replay`).
"""

from fipbench.baselines._laws import LEARNING_RATE, STRENGTH
from fipbench.baselines._rehearsal import Rehearsal

from fipbench.fip.continual import PRESETS, invariance
from fipbench.methods import Choice, continual

_DISTANCES = ("bhattacharyya", "kl", "jensen_shannon", "squared_euclidean")


@continual(search={"learning_rate": LEARNING_RATE, "strength": STRENGTH, "distance": Choice(_DISTANCES)})
def fip(*, learning_rate: float = 0.003, strength: float = 1.0, distance: str = "bhattacharyya", memory: int = 10):
    """A path of constant outputs on the memory while the new task is learned, tuned by the common search."""
    return _keep(distance, strength, {"learning_rate": learning_rate})


@continual(search={"learning_rate": LEARNING_RATE, "strength": STRENGTH})
def fip_logits(*, learning_rate: float = 0.003, strength: float = 0.1, memory: int = 10):
    """FIP with the squared Euclidean distance of the logits, a sum over the outputs: hence the smaller default."""
    return _keep("squared_euclidean", strength, {"learning_rate": learning_rate})


@continual(search={"learning_rate": LEARNING_RATE, "strength": STRENGTH})
def fip_kl(*, learning_rate: float = 0.003, strength: float = 1.0, memory: int = 10):
    """FIP with the Kullback-Leibler divergence of the softmax outputs."""
    return _keep("kl", strength, {"learning_rate": learning_rate})


@continual(search={"learning_rate": LEARNING_RATE, "strength": STRENGTH})
def fip_bhattacharyya(*, learning_rate: float = 0.003, strength: float = 1.0, memory: int = 10):
    """FIP with the Bhattacharyya distance of the softmax outputs, the public code's."""
    return _keep("bhattacharyya", strength, {"learning_rate": learning_rate})


@continual(settings="published")
def fip_paper(*, memory: int = 10):
    """FIP-CF as listed for two tasks: lambda 1, Adam at 0.01, weight decay 2e-4; mean Bhattacharyya distance."""
    return _keep(**PRESETS["paper"])


@continual(settings="published")
def fip_authors_code(*, memory: int = 10):
    """FIP-CF as in the authors' public code: summed distance, a second network in every step, SGD at 0.001."""
    return _keep(**PRESETS["authors-code"])


def _keep(distance, strength, fitting, reduction="mean", epsilon=0.0, second_network=False):
    moved = invariance(distance, reduction=reduction, epsilon=epsilon)

    def term(trial, logits, kept, noted):
        return strength * moved(logits, noted)

    return Rehearsal(term, fitting, noted="second network" if second_network else "task start")
