"""Adaptive diversity promoting training (Pang et al., 2019): members are trained together, to differ where it is safe.

All members start untrained and share what the base network leaves of the budget. Besides each member's cross-entropy
the loss rewards the entropy of the mean prediction, and the volume that the members' predictions span over the classes
other than the label's; a diversity in which the label itself has no part.
"""

import torch
from torch import nn

from fipbench.methods import Choice, LogUniform, robustness

# Added to the diagonal before the determinant, as in the authors' public code.
OFFSET = 1e-6


@robustness(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "alpha": LogUniform(0.05, 10.0),
        "beta": LogUniform(0.01, 2.0),
    },
)
def adp(*, learning_rate: float = 0.03, rule: str = "sgd", alpha: float = 2.0, beta: float = 0.5):
    """Members trained together for accuracy, entropy and diversity; alpha 2 and beta 0.5 are the published ones."""

    def members(model, trial):
        networks = nn.ModuleList([trial.fresh(k) for k in range(trial.members)])

        def loss(networks, batch):
            logits = torch.stack([network(batch.inputs) for network in networks])
            accuracy = sum(nn.functional.cross_entropy(one, batch.labels) for one in logits)
            diversity = alpha * entropy(logits) + beta * log_volume(logits, batch.labels)
            return accuracy - diversity.mean()

        trial.fit(networks, steps=trial.steps // len(networks), learning_rate=learning_rate, rule=rule, loss=loss)
        return list(networks)

    return members


def entropy(logits):
    """Shannon entropy in nats of the members' mean softmax, the paper's H(F); logits (members, n, classes)."""
    log_mean = logits.log_softmax(-1).logsumexp(0) - torch.tensor(float(len(logits))).log()
    return -(log_mean.exp() * log_mean).sum(-1)


def log_volume(logits, labels):
    """log det(M^T M) of each example, shape (n,): the paper's log of the ensemble diversity.

    The columns of M are the members' softmax outputs without the label's, scaled to length one. In double precision
    and from logarithms, since those outputs are tiny once a network is sure of the label.
    """
    others = torch.ones(logits.shape[1:], dtype=torch.bool, device=logits.device).scatter(1, labels[:, None], False)
    kept = logits.double().log_softmax(-1)[:, others].view(len(logits), len(labels), -1)
    columns = (kept - 0.5 * (2 * kept).logsumexp(-1, keepdim=True)).exp().transpose(0, 1)
    gram = columns @ columns.transpose(1, 2)
    return torch.logdet(gram + OFFSET * torch.eye(len(logits), dtype=gram.dtype, device=gram.device))
