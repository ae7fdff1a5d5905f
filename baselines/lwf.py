"""Learning without forgetting (Li & Hoiem, 2016, section 3), by avalanche-lib.

The loss on a task gains alpha times the cross-entropy between the outputs that the network had on the task's own
examples before it and those it has now, both softened by the temperature. No example is kept, and as in the paper the
term is not multiplied by the squared temperature.

The distance is the library's. Other than there, the old outputs are recorded once a task, as in the paper, not computed
anew in every step by a copy of the network in training mode; and where a task is trained with the
softmax over its own outputs, so is each earlier task kept.
"""

from fipbench.baselines._laws import LEARNING_RATE

from fipbench.compat import import_torchvision
from fipbench.methods import Choice, LogUniform, continual


@continual(
    search={"learning_rate": LEARNING_RATE, "alpha": LogUniform(0.1, 100.0), "temperature": Choice((1.0, 2.0, 4.0))}
)
def lwf(*, learning_rate: float = 0.003, alpha: float = 1.0, temperature: float = 2.0):
    """Learning without forgetting: keep the outputs of earlier tasks on the new task's examples."""
    import_torchvision()
    from avalanche.training import LearningWithoutForgetting
    from avalanche.training.plugins import LwFPlugin

    class Distillation(LearningWithoutForgetting):
        groups = ()

        def _distillation_loss(self, out, prev_out, active_units):
            distance = super()._distillation_loss
            return sum(distance(out, prev_out, group) for group in self.groups)

    class LwF(LwFPlugin):
        def before_training_exp(self, strategy, **kwargs):
            if self.lwf.groups:
                recorded = strategy.trial.outputs(strategy.model, strategy.given.train)
                self.lwf.prev_model = lambda inputs: recorded[strategy.batch.positions]

        def after_training_exp(self, strategy, **kwargs):
            learned, lwf = list(strategy.given.classes), self.lwf
            seen = lwf.prev_classes_by_task[0]
            seen.update(learned)
            apart = strategy.trial.criterion.outputs_of is not None
            lwf.groups = (*lwf.groups, learned) if apart else (sorted(seen),)

    plugin = LwF(alpha, temperature)
    plugin.lwf = Distillation(alpha, temperature)
    plugin.learning_rate = learning_rate
    return plugin
