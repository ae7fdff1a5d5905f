"""Averaged gradient episodic memory (Chaudhry et al., 2019, eq. 11), by avalanche-lib.

Where a gradient would raise the loss on a random batch from memory, its part along that batch's gradient is taken out.

The projection is the library's. Memory and draws are the suite's: the library divides its sample by the number of
tasks, which comes to nothing where tasks are many and to a few examples where the memory is small. So is the length of
the gradient on memory: the library divides by its square, which is zero in float32 long before the gradient is.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE

from fipbench.compat import import_torchvision
from fipbench.methods import continual
from fipbench.training import Examples

# Of what the projection divides by: below it a gradient on memory is brought to length about 1, which changes nothing.
SMALLEST = torch.finfo(torch.float32).tiny


@continual(search={"learning_rate": LEARNING_RATE})
def a_gem(*, learning_rate: float = 0.003, memory: int = 10):
    """Averaged gradient episodic memory: no step against the gradient of a random batch from memory."""
    import_torchvision()
    from avalanche.training.plugins import AGEMPlugin

    class AGEM(AGEMPlugin):
        def after_training_exp(self, strategy, **kwargs):
            self.trial = strategy.trial
            self.buffers.append(self.trial.remember(strategy.given))
            self.memory = Examples(*(torch.cat(parts) for parts in zip(*self.buffers, strict=True)))

        def before_training_iteration(self, strategy, **kwargs):
            super().before_training_iteration(strategy, **kwargs)
            if self.buffers and self.reference_gradients.square().sum() < SMALLEST:
                self.reference_gradients /= self.reference_gradients.abs().max().clamp(min=SMALLEST)

        def sample_from_memory(self):
            batch = self.trial.draw(self.memory)
            return batch.inputs, batch.labels, torch.zeros_like(batch.labels)

    plugin = AGEM(patterns_per_experience=memory, sample_size=0)
    plugin.learning_rate = learning_rate
    return plugin
