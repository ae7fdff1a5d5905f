"""Experience replay (Ratcliff, 1990; Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019).

Not avalanche-lib's plugin: that mixes both into one batch, so the memory's weight cannot be searched as FIP's is.
"""

from fipbench.baselines._laws import LEARNING_RATE, STRENGTH
from fipbench.baselines._rehearsal import Rehearsal

from fipbench.methods import continual


@continual(search={"learning_rate": LEARNING_RATE, "strength": STRENGTH})
def replay(*, learning_rate: float = 0.003, strength: float = 1.0, memory: int = 10):
    """Cross-entropy on a batch from memory beside the new one: the memory's labels only."""

    def term(trial, logits, kept, noted):
        return strength * trial.criterion(logits, kept.labels)

    return Rehearsal(term, {"learning_rate": learning_rate}, noted="nothing")
