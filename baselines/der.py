"""Dark experience replay (Buzzega et al., 2020, equations 5 and 6).

Not avalanche-lib's: that replays nothing while the memory is smaller than a batch. As there, logits are noted at the
end of the task that the examples come from, not while it is learned.
"""

from fipbench.baselines._laws import LEARNING_RATE, STRENGTH
from fipbench.baselines._rehearsal import Rehearsal
from torch.nn.functional import mse_loss

from fipbench.methods import continual


@continual(search={"learning_rate": LEARNING_RATE, "alpha": STRENGTH})
def der(*, learning_rate: float = 0.003, alpha: float = 0.5, memory: int = 10):
    """Mean squared difference to the logits noted with the examples, weighted by alpha."""
    return Rehearsal(_logits(alpha), {"learning_rate": learning_rate}, noted="stored")


@continual(search={"learning_rate": LEARNING_RATE, "alpha": STRENGTH, "beta": STRENGTH})
def der_plus_plus(*, learning_rate: float = 0.003, alpha: float = 0.5, beta: float = 0.5, memory: int = 10):
    """DER, and on a second batch from memory the cross-entropy with its labels, weighted by beta."""

    def labels(trial, logits, kept, noted):
        return beta * trial.criterion(logits, kept.labels)

    return Rehearsal((_logits(alpha), labels), {"learning_rate": learning_rate}, noted="stored")


def _logits(alpha):
    return lambda trial, logits, kept, noted: alpha * mse_loss(logits, noted)
