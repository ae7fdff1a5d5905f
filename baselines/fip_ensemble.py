"""FIP ensemble (Nature Machine Intelligence 6, 2024, Algorithm 3): `fipbench.fip.ensemble` under the harness.

`fip` has its settings from the common search; `fip-paper` is the published reading, as far as it can be run.
"""

from fipbench.fip.ensemble import PRESETS, ensemble
from fipbench.methods import Choice, LogUniform, robustness

PROBES = 2


@robustness(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "radius": LogUniform(0.05, 5.0),
        "kick": Choice(("layer", "rotate", "global")),
        "distance": Choice(("bhattacharyya", "kl", "jensen_shannon", "euclidean", "squared_euclidean")),
        "task_weight": Choice((0.0, 0.1, 1.0)),
        "selection": Choice(("spaced", "threshold", "narrow", "validation")),
        "epsilon": LogUniform(1e-3, 0.3),
        "kicks": Choice((1, 2, 4)),
    },
)
def fip(
    *,
    learning_rate: float = 0.003,
    rule: str = "adam",
    radius: float = 1.0,
    kick: str = "rotate",
    distance: str = "bhattacharyya",
    task_weight: float = 0.0,
    selection: str = "spaced",
    epsilon: float = 0.1,
    kicks: int = 1,
):
    """Networks along a path of constant outputs, tuned by the common search.

    `kicks` are those for each member; `epsilon` belongs to the selections that perturb inputs."""
    return _walk(
        kicks,
        learning_rate=learning_rate,
        optimizer=rule,
        radius=radius,
        kick=kick,
        distance=distance,
        task_weight=task_weight,
        selection=selection,
        epsilon=epsilon,
    )


@robustness(version="1", settings="published")
def fip_paper():
    """FIP ensemble as printed: plain steps of 0.01, members with a small change under a signed-gradient step."""
    return _walk(2, **PRESETS["paper"])


def _walk(kicks, **options):
    def members(model, trial):
        wanted = trial.outputs(model)
        networks = kicks * trial.members - 1  # and the start
        # To probe a network takes two passes forward and one backward.
        probing = 0 if options["selection"] == "spaced" else 3 * PROBES * (networks + 1) * trial.batch_size
        left = trial.meter.limit - trial.meter.passes - probing
        return ensemble(
            model,
            trial.batches,
            trial.members,
            steps=left // (2 * trial.batch_size) // networks,
            kicks=networks,
            probes=PROBES,
            generator=trial.generator,
            reference=lambda batch: wanted[batch.positions],
            **options,
        )

    return members
