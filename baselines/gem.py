"""Gradient episodic memory (Lopez-Paz & Ranzato, 2017, section 3), by avalanche-lib.

Where a gradient would raise the loss on the memory of an earlier task, the nearest one that raises none is taken. As in
the authors' code and the library, `margin` bounds the dual variables from below, which favours earlier tasks.

Two parts are not the library's. Its quadratic programme has 0.001 added to the diagonal, more than the gradients of a
task that is well learned, and then projects hardly at all; here it is solved as printed. And memories are the suite's.
"""

import numpy as np
import torch
from fipbench.baselines._laws import LEARNING_RATE

from fipbench.compat import import_torchvision
from fipbench.methods import Uniform, continual


@continual(search={"learning_rate": LEARNING_RATE, "margin": Uniform(0.0, 1.0)})
def gem(*, learning_rate: float = 0.003, margin: float = 0.5, memory: int = 10):
    """Gradient episodic memory: no step against the gradient of an earlier task's memory."""
    import_torchvision()
    from avalanche.training.plugins import GEMPlugin

    class GEM(GEMPlugin):
        def after_training_exp(self, strategy, **kwargs):
            task, kept = strategy.clock.train_exp_counter, strategy.trial.remember(strategy.given)
            batch = kept.batch(torch.arange(len(kept.labels), device=kept.labels.device))
            self.memory_x[task], self.memory_y[task] = batch.inputs, batch.labels
            self.memory_tid[task] = torch.zeros_like(batch.labels)

        def solve_quadprog(self, g):
            rows = self.G.double()
            weights = dual((rows @ rows.T).cpu().numpy(), (rows @ g.double()).cpu().numpy(), self.memory_strength)
            return g + torch.as_tensor(weights, dtype=g.dtype, device=g.device) @ self.G

    plugin = GEM(patterns_per_experience=memory, memory_strength=margin)
    plugin.learning_rate = learning_rate
    return plugin


def dual(gram, products, margin=0.0):
    """The v >= margin that minimises v' gram v / 2 + products' v; g + v' G is then the projected gradient.

    gram (t, t) is G G', products (t,) G g, for the rows of G the memories' gradients. These may depend on one another:
    it is solved as least squares with v not negative, in the eigenvectors of gram.
    """
    from scipy.optimize import nnls

    scale = np.diag(gram).mean()
    gram, products = gram / scale, products / scale
    values, vectors = np.linalg.eigh(gram)
    roots = np.sqrt(np.clip(values, 0, None))
    own = values > 1e-12 * values.max()
    linear = products + margin * gram.sum(axis=1)
    target = -(vectors[:, own].T @ linear) / roots[own]
    return margin + nnls(roots[own, None] * vectors[:, own].T, target)[0]
