"""FIP-Sparse (Nature Machine Intelligence 6, 2024, Algorithm 2): the library `fipbench.fip` under the harness.

`fip` has its settings from the common search; `fip-paper` and `fip-authors-code` are the two published readings,
as printed and as in the authors' public code.
"""

import copy

from fipbench.baselines._levels import LevelByLevel

from fipbench.fip.sparse import PRESETS, sparsify
from fipbench.methods import Choice, LogUniform, Uniform, sparsity


@sparsity(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "ramp": Uniform(0.0, 0.5),
        "settle": Uniform(0.0, 0.5),
        "strength": LogUniform(1e-3, 10.0),
        "distance": Choice(("bhattacharyya", "kl", "jensen_shannon", "euclidean", "squared_euclidean")),
        "scope": Choice(("global", "layer")),
        "attraction": Choice(("squared", "norm")),
    },
)
def fip(
    *,
    learning_rate: float = 0.01,
    rule: str = "adam",
    ramp: float = 0.0,
    settle: float = 0.2,
    strength: float = 1.0,
    distance: str = "bhattacharyya",
    scope: str = "global",
    attraction: str = "norm",
):
    """A path of constant outputs towards the sparse hyperplane, tuned by the common search."""
    return _walk(
        learning_rate=learning_rate,
        optimizer=rule,
        ramp=ramp,
        settle=settle,
        strength=strength,
        distance=distance,
        scope=scope,
        attraction=attraction,
    )


@sparsity(version="1", settings="published")
def fip_paper():
    """FIP-Sparse as printed: lambda 1, Adam at 0.01, the norm of w - w_p, projected at the end."""
    return _walk(**PRESETS["paper"])


@sparsity(version="1", settings="published")
def fip_authors_code():
    """FIP-Sparse as in the authors' public code: summed distance, lambda 0.1, steps of fixed length."""
    return _walk(**PRESETS["authors-code"])


def _walk(start="previous", **options):
    def make(level):
        # The function that is kept is the one that is used: no dropout, batch norm by its running statistics.
        begin = copy.deepcopy(level.dense if start == "dense" else level.network).eval()
        [(_, network)] = sparsify(
            begin,
            level.trial.batches,
            (level.sparsity,),
            steps=level.steps,
            begin=0.0 if start == "dense" else level.before,
            reference=lambda batch: level.wanted[batch.positions],
            **options,
        )
        return network

    return LevelByLevel(make, outputs=True)
