"""FIP-CF and FIP-Sparse as operations that compose (Nature Machine Intelligence 6, 2024, Algorithms 1 and 2, Fig. 6a).

Both operations are those of `fipbench.fip.compose`: CL keeps the outputs on the memory of the data set that is past, Co
keeps them on the data in hand and on that memory.
"""

from fipbench.fip.compose import CL, Co, Source, State
from fipbench.methods import Choice, LogUniform, composition

_DISTANCES = ("bhattacharyya", "kl", "jensen_shannon", "squared_euclidean")


@composition(
    search={
        "learning_rate": LogUniform(1e-5, 1e-2),
        "strength": LogUniform(0.03, 30.0),
        "co_learning_rate": LogUniform(1e-5, 1e-2),
        "co_strength": LogUniform(1e-3, 10.0),
        "distance": Choice(_DISTANCES),
        "keep_zeros": Choice((True, False)),
    }
)
def fip(
    *,
    learning_rate: float = 1e-3,
    strength: float = 1.0,
    co_learning_rate: float = 1e-3,
    co_strength: float = 0.1,
    distance: str = "bhattacharyya",
    keep_zeros: bool = True,
):
    """Learn and make sparse along paths of constant outputs; `keep_zeros`: what is zero stays so while learning."""

    def operate(network, operation, trial):
        recipe, memory = trial.recipe, operation.memory
        kept = None if memory is None else memory.inputs
        data = {"past": Source((), kept), "now": Source(operation.batches)}
        rows = trial.batch_size + (0 if kept is None else min(trial.batch_size, len(kept)))
        seed = int(trial.generator.initial_seed())
        if operation.kind == "co":
            state = State(network, ("now",) if kept is None else ("past", "now"), seed)
            options = {"strength": co_strength, "distance": distance, "ramp": 0.5, "settle": 0.4}
            # Every row goes through the frozen network and the moving one, and back through this.
            steps = max(1, trial.steps(3 * rows))
            walk = Co(operation.sparsity, steps, co_learning_rate, options, trial.batch_size)
            return walk(state, data).network
        noted = 0 if kept is None else len(kept)
        learn = CL(
            "now",
            steps=trial.steps(2 * rows, after=noted),
            learning_rate=learning_rate,
            rule=recipe.optimizer,
            strength=strength,
            distance=distance,
            keep_zeros=keep_zeros,
            clip=recipe.clip or 0.0,
            weight_decay=recipe.weight_decay,
            batch_size=trial.batch_size,
        )
        return learn(State(network, ("past",), seed), data).network

    return operate
