"""FIP with the exact step (Nature Machine Intelligence 6, 2024, equation 4) in place of a penalised gradient step.

Each step is the psi of length `learning_rate` that minimises <psi, psi>_g + beta <psi, gradient of the new batch's
loss>, g being the metric of the network's outputs on a draw from memory, solved as a trust-region problem. The paper
prints no more: as printed is `reference="here"`, by which outputs are held to what they were before each step, and what
adds up is not taken back. With "task start" they are held to those before the task, to first order. g is taken anew
every `every` steps. For networks of linear layers, whose J is held layer by layer.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE
from torch import nn

from fipbench.errors import UserError
from fipbench.fip.metric.operator import SPACES
from fipbench.fip.solvers.exact import exact_step
from fipbench.fip.solvers.layers import layer_jacobian
from fipbench.methods import Choice, LogUniform, continual
from fipbench.training import Examples, fit


@continual(
    search={
        "learning_rate": LEARNING_RATE,
        "beta": LogUniform(1e-3, 1e2),
        "space": Choice(("logits", "softmax", "fisher")),
        "reference": Choice(("here", "task start")),
    }
)
def fip_exact(
    *,
    learning_rate: float = 0.03,
    beta: float = 1.0,
    space: str = "logits",
    reference: str = "task start",
    every: int = 8,
    examples: int = 16,
    memory: int = 10,
):
    """A path of exact steps: each the best of its length for keeping outputs and learning the new batch."""
    return _Exact(learning_rate, beta, space, reference, every, examples)


class _Exact:
    """`learn(model, experience, trial)`; what is remembered is the trial's to keep."""

    def __init__(self, length, beta, space, reference, every, examples):
        self.length, self.beta, self.space = length, beta, space
        self.anchored = reference == "task start"
        self.every, self.examples = every, examples

    def __call__(self, model, experience, trial):
        if trial.kept:
            memory = Examples(*(torch.cat(parts) for parts in zip(*trial.kept.values(), strict=True)))
            # The step is the gradient's negative, so that a plain gradient step of rate 1 takes it.
            rule = torch.optim.SGD(_weights(model), lr=1.0)
            loss = self._loss(model, memory, trial)
            fit(model, experience.batches, steps=experience.steps, optimizer=rule, loss=loss)
        trial.remember(experience)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """Nothing is held from task to task."""

    def _loss(self, model, memory, trial):
        start = SPACES[self.space](trial.outputs(model, memory)) if self.anchored else None
        steps, spectrum, drift = 0, None, None

        def loss(network, batch):
            nonlocal steps, spectrum, drift
            if steps % self.every == 0:
                drawn = trial.draw(memory)
                spectrum = self._spectrum(network, drawn.inputs[: self.examples], trial.meter)
                if self.anchored:
                    jacobian = spectrum.metric
                    moved = jacobian.outputs - start[drawn.positions[: self.examples]]
                    drift = jacobian.scale * moved.flatten().double()
            weights = _weights(network)
            gradient = torch.autograd.grad(trial.criterion.loss(network, batch), weights)
            step = exact_step(
                spectrum,
                nn.utils.parameters_to_vector(gradient),
                radius=self.length,
                beta=self.beta,
                drift=drift,
                refinements=0,
                generator=trial.generator,
            )
            drift = drift + step.change if self.anchored else None
            steps += 1
            return -(nn.utils.parameters_to_vector(weights) @ step.vector)

        return loss

    def _spectrum(self, network, inputs, meter):
        try:
            return layer_jacobian(network, inputs, space=self.space, spend=meter.spend).spectrum()
        except ValueError as error:
            raise UserError(f"fip-exact: {error}") from error


def _weights(network):
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
