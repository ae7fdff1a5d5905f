"""Fine-tuning: learn each task and look back at nothing; the floor that every method must clear."""

from fipbench.baselines._laws import LEARNING_RATE

from fipbench.methods import continual


@continual(search={"learning_rate": LEARNING_RATE})
def naive(*, learning_rate: float = 0.003):
    """Fine-tuning on each task in turn."""

    def learn(model, experience, trial):
        trial.fit(model, experience, learning_rate=learning_rate)

    return learn
