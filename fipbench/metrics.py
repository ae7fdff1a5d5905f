"""Definitions of what is measured."""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import torch
from torch import Tensor, nn

from fipbench.spec import Items


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Fraction of examples whose largest output is the label's. Shapes (n, classes) and (n,)."""
    return float((outputs.argmax(1) == labels).double().mean())


def matthews_correlation(outputs: Tensor, labels: Tensor) -> float:
    """Correlation of predicted and true classes, from -1 to 1, of shapes (n, classes) and (n,); CoLA's score in GLUE.

    Of two classes Matthews's phi = (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)) (1975), of more
    Gorodkin's R_K (2004). Where all predictions, or all labels, are one class, it is 0/0 and taken to be 0: nothing is
    told apart.
    """
    classes = max(outputs.shape[1], int(labels.max()) + 1)
    predicted, true = (nn.functional.one_hot(x, classes).double() for x in (outputs.argmax(1), labels))
    predicted, true = predicted - predicted.mean(0), true - true.mean(0)
    spread = math.sqrt(float(predicted.square().sum()) * float(true.square().sum()))
    return float((predicted * true).sum()) / spread if spread else 0.0


def f1(outputs: Tensor, labels: Tensor) -> float:
    """Harmonic mean of precision and recall of class 1 among two, 2 TP / (2 TP + FP + FN), from 0 to 1; the score of
    MRPC and QQP in GLUE, beside accuracy. Shapes (n, 2) and (n,).

    0 where the class is neither predicted nor there.

    Raises:
        ValueError: more or fewer than two classes.
    """
    if outputs.shape[1] != 2:
        raise ValueError(f"f1 is of two classes, the second the positive one, got {outputs.shape[1]} outputs")
    predicted, true = outputs.argmax(1) == 1, labels == 1
    either = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / either if either else 0.0


def pearson(predictions: Tensor, targets: Tensor) -> float:
    """Linear correlation of two samples of shape (n,), from -1 to 1; a score of STS-B in GLUE.

    0 where one of them is constant: no line has a slope there.

    Raises:
        ValueError: unlike shapes, fewer than two values, or one that is not finite.
    """
    if predictions.shape != targets.shape or predictions.ndim != 1 or len(targets) < 2:
        raise ValueError(f"needs two samples of n >= 2, got {tuple(predictions.shape)} and {tuple(targets.shape)}")
    pair = torch.stack([predictions.double(), targets.double()])
    if not bool(pair.isfinite().all()):
        raise ValueError("needs finite values")
    if bool((pair == pair[:, :1]).all(1).any()):
        return 0.0
    pair = pair - pair.mean(1, keepdim=True)
    x, y = pair / pair.abs().amax(1, keepdim=True)  # so that no square is too large or too small for a float
    return max(-1.0, min(1.0, float(x @ y / (x.norm() * y.norm()))))


def spearman(predictions: Tensor, targets: Tensor) -> float:
    """`pearson` of the ranks, where equal values share their mean rank; the other score of STS-B. Errors as there."""
    ranks = []
    for values in (predictions, targets):
        _, which, counts = values.unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0).double()
        ranks.append((last - (counts - 1) / 2)[which] if bool(values.isfinite().all()) else values.double())
    return pearson(*ranks)


def on_scale(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted and true values on a scale from 0, each of shape (n,), float64: the expectation of the softmax outputs
    over the scale's whole numbers, and that of the labels (Tai, Socher & Manning, 2015, section 3).

    Args:
        outputs: logits of the whole numbers 0 .. k - 1, shape (n, k).
        labels: their probabilities, shape (n, k), as of `fipbench.data.batches.spread`.
    """

    def mean(shares: Tensor) -> Tensor:
        # Column by column, not by a matrix product, in which equal rows may be rounded unlike: ties have to stay ties.
        total = torch.zeros_like(shares[:, 0])
        for number, share in enumerate(shares.unbind(1)):
            total = total + number * share
        return total

    return mean(outputs.double().softmax(1)), mean(labels.double())


def pearson_spearman(outputs: Tensor, labels: Tensor) -> float:
    """The mean of both correlations of predicted and true values; the score of STS-B in GLUE. Shapes of `on_scale`."""
    predicted, true = on_scale(outputs, labels)
    return (pearson(predicted, true) + spearman(predicted, true)) / 2


def perplexity_of(outputs: Tensor, labels: Tensor) -> float:
    """`perplexity` of the labels' cross-entropies, at most the largest float; shapes (n, classes) and (n,)."""
    losses = nn.functional.cross_entropy(outputs, labels, reduction="none")
    return min(perplexity(losses.tolist()), sys.float_info.max)


def inverse_perplexity(outputs: Tensor, labels: Tensor) -> float:
    """1 / perplexity, from 0 to 1: the geometric mean of the probabilities that the labels are given. Figure 6c of
    Nature Machine Intelligence 6, 2024, is drawn over it. Shapes (n, classes) and (n,)."""
    return 1 / perplexity_of(outputs, labels)


# Scores of a network from its outputs (n, k) and the labels, by the names in `fipbench.spec.MEASURED`: classes, of
# shape (n,), or for the correlations probabilities of the whole numbers on a scale, of shape (n, k).
SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "inverse_perplexity": inverse_perplexity,
    "matthews_correlation": matthews_correlation,
    "pearson": lambda outputs, labels: pearson(*on_scale(outputs, labels)),
    "pearson_spearman": pearson_spearman,
    "perplexity": perplexity_of,
    "spearman": lambda outputs, labels: spearman(*on_scale(outputs, labels)),
}


def packed_correct(outputs: Tensor, labels: Tensor) -> Items:
    """Correctness of each example as packed bits (most significant first, base64)."""
    return packed(outputs.argmax(1) == labels)


def packed(correct: Tensor) -> Items:
    """A boolean tensor of shape (n,) as packed bits (most significant first, base64)."""
    import numpy as np

    bits = np.packbits(correct.cpu().numpy())
    return Items(count=len(correct), bits=base64.b64encode(bits.tobytes()).decode())


def area_under_sparsity(sparsities: Sequence[float], scores: Sequence[float]) -> float:
    """Mean score over a range of sparsities, on the axis -log10(1 - sparsity) on which pruning is plotted.

    The trapezoid rule over that axis, divided by its length; on it 90, 99 and 99.9 % are equally far apart. One
    level alone is its own mean.

    Raises:
        ValueError: no levels, levels that do not increase, or another number of scores.
    """
    if len(sparsities) != len(scores) or not sparsities:
        raise ValueError("needs as many scores as sparsities, and at least one")
    x = [-math.log10(1 - s) for s in sparsities]
    if any(b <= a for a, b in pairwise(x)):
        raise ValueError(f"sparsities must increase, got {list(sparsities)}")
    if len(x) == 1:
        return float(scores[0])
    area = sum((x[i + 1] - x[i]) * (scores[i + 1] + scores[i]) / 2 for i in range(len(x) - 1))
    return area / (x[-1] - x[0])


# ------------------------------------------------------------------------------------ continual learning
#
# R is the accuracy matrix of a stream of T tasks, a sequence of T rows of T numbers (or an array): R[i][j], both from
# 0, is the accuracy on task j of the network that has learned tasks 0 to i. Above the diagonal stand tasks that have
# not been learned yet. Results are in the unit of R.

Matrix = Sequence[Sequence[float]]


def average_accuracy(R: Matrix, variant: str = "final") -> float:
    """Mean accuracy over the tasks learned.

    final: ACC = 1/T sum_j R[T-1][j], the network at the end on all tasks (Lopez-Paz & Ranzato, 2017, Eq. 2).
    anytime: the mean over i of 1/(i+1) sum_(j<=i) R[i][j], the network after each task on the tasks up to it
    (average incremental accuracy: Rebuffi et al., 2017).

    Raises:
        ValueError: R is not square or has an entry that is not finite; an unknown variant.
    """
    rows = _accuracy_matrix(R)
    _known_variant(variant, ("final", "anytime"))
    so_far = [_mean(row[: i + 1]) for i, row in enumerate(rows)]
    return so_far[-1] if variant == "final" else _mean(so_far)


def forgetting(R: Matrix, variant: str = "max") -> float:
    """Mean loss of accuracy on the tasks before the last, at the end; negative where later tasks helped.

    max: F = 1/(T-1) sum_(j<T-1) (max_(l<T-1) R[l][j] - R[T-1][j]), from the best that any earlier network reached,
    one that had not learned the task yet included (Chaudhry et al., 2018, "forgetting measure" F_k with k = T).
    last-learned: 1/(T-1) sum_(j<T-1) (R[j][j] - R[T-1][j]), from right after the task; this is minus
    `backward_transfer`.

    Raises:
        ValueError: as `average_accuracy`; fewer than two tasks.
    """
    rows = _accuracy_matrix(R, least=2)
    _known_variant(variant, ("max", "last-learned"))
    last = len(rows) - 1
    best = [max(row[j] for row in rows[:last]) if variant == "max" else rows[j][j] for j in range(last)]
    return _mean([best[j] - rows[last][j] for j in range(last)])


def backward_transfer(R: Matrix) -> float:
    """BWT = 1/(T-1) sum_(j<T-1) (R[T-1][j] - R[j][j]): what later tasks did to those before them (Lopez-Paz &
    Ranzato, 2017, Eq. 3); negative is forgetting.

    Raises:
        ValueError: as `average_accuracy`; fewer than two tasks.
    """
    rows = _accuracy_matrix(R, least=2)
    return _mean([rows[-1][j] - rows[j][j] for j in range(len(rows) - 1)])


def forward_transfer(R: Matrix, baseline: Sequence[float]) -> float:
    """FWT = 1/(T-1) sum_(0<j<T) (R[j-1][j] - baseline[j]): what the tasks before it give a task that has not been
    learned (Lopez-Paz & Ranzato, 2017, Eq. 4).

    Args:
        baseline: accuracy of the untrained network on each of the T tasks.

    Raises:
        ValueError: as `average_accuracy`; fewer than two tasks; a baseline of another length or not finite.
    """
    rows = _accuracy_matrix(R, least=2)
    untrained = [float(value) for value in baseline]
    if len(untrained) != len(rows) or not all(map(math.isfinite, untrained)):
        raise ValueError(f"baseline needs {len(rows)} finite accuracies, one a task, got {untrained}")
    return _mean([rows[j - 1][j] - untrained[j] for j in range(1, len(rows))])


def perplexity(losses: Sequence[float]) -> float:
    """exp of the mean cross-entropy, 1/n sum_i losses[i] in nats, of n predicted tokens (or queries).

    The FIP papers print the exponential of the sum; only that of the mean is a perplexity on the scale of their axes.

    Raises:
        ValueError: no losses, or one that is not finite.
    """
    values = [float(loss) for loss in losses]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"perplexity needs one or more finite cross-entropies, got {len(values)} values")
    try:
        return math.exp(_mean(values))
    except OverflowError:
        return math.inf


def _accuracy_matrix(R: Matrix, least: int = 1) -> list[list[float]]:
    """R as rows of floats, checked."""
    rows = [[float(value) for value in row] for row in R]
    if len(rows) < least:
        raise ValueError(f"the accuracy matrix needs {least} or more tasks, got {len(rows)}")
    if any(len(row) != len(rows) for row in rows):
        raise ValueError(f"the accuracy matrix must be square, got rows of {[len(row) for row in rows]} entries")
    if not all(math.isfinite(value) for row in rows for value in row):
        raise ValueError("the accuracy matrix has an entry that is not finite")
    return rows


def _known_variant(variant: str, known: Sequence[str]) -> None:
    if variant not in known:
        raise ValueError(f"unknown variant {variant!r}: expected {' or '.join(known)}")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# ------------------------------------------------------------------------------------------- ensembles


@torch.no_grad()
def representation_diversity(
    members: Sequence[nn.Module], inputs: Tensor, *, point: str = "post", ddof: int = 0
) -> dict[str, Tensor]:
    """D(layer, x), the standard deviation over the members a of || h_(a, layer)(x) ||_2 (Nature Machine Intelligence
    6, 2024, representation diversity score), of every convolution and linear layer.

    Which h, which deviation and which mean over inputs the paper does not say. It is the norm of all that a layer
    gives for x, so wide layers count for more; D of two layers is not to be compared.

    Args:
        members: networks with the same layers; called as they are, so evaluation mode is the caller's.
        inputs: shape (n, ...), in one batch.
        point: `post`: h is the layer's output after ReLU, except for the last layer's (the default); `pre`: before it.
        ddof: 0 divides by the number of members (the default), 1 by one less.

    Returns:
        D by layer, in order, each of shape (n,), float64.

    Raises:
        ValueError: no more members than `ddof`, members without such layers or with other ones, another `point`.
    """
    _known_variant(point, ("post", "pre"))
    if len(members) <= ddof:
        raise ValueError(f"a deviation with ddof {ddof} needs more than {ddof} members, got {len(members)}")
    norms = [_layer_norms(member, inputs, point) for member in members]
    if any(list(one) != list(norms[0]) for one in norms) or not norms[0]:
        raise ValueError("the members must have the same convolutions and linear layers, at least one")
    return {layer: torch.stack([one[layer] for one in norms]).std(0, correction=ddof) for layer in norms[0]}


def _layer_norms(model: nn.Module, inputs: Tensor, point: str) -> dict[str, Tensor]:
    """|| h ||_2 of each input, by layer."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    last = next(reversed(layers), "")
    # A network may take its batch in parts.
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            h = output.relu() if point == "post" and name != last else output
            found[name].append(torch.linalg.vector_norm(h.flatten(1).double(), dim=1))

        return hook

    hooks = [module.register_forward_hook(listen(name)) for name, module in layers.items()]
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def coherence(gradients: Sequence[Tensor], surrogate: Tensor | None = None) -> Tensor:
    """How well an attack made for another network may serve against the members, from -1 to 1 (Nature Machine
    Intelligence 6, 2024, equations 6 and 7).

    With a surrogate, coherence(x) is the largest cosine similarity over the members a of grad_x J_a and grad_x J_s.
    Without one, it is the largest over all pairs of members, as the sentence before equation 7 has it. The similarity
    with a gradient that is zero is zero.

    Args:
        gradients: of each member's loss at its input, each of shape (n, ...).
        surrogate: the surrogate's, of the same shape.

    Returns:
        Shape (n,), float64.

    Raises:
        ValueError: no members, or without a surrogate fewer than two.
    """
    if len(gradients) < (1 if surrogate is not None else 2):
        raise ValueError(f"coherence needs one member and a surrogate or two members, got {len(gradients)} members")
    units = [_units(gradient) for gradient in gradients]
    if surrogate is None:
        found = [(a * b).sum(1) for a, b in combinations(units, 2)]
    else:
        other = _units(surrogate)
        found = [(unit * other).sum(1) for unit in units]
    return torch.stack(found).amax(0)


def _units(gradient: Tensor) -> Tensor:
    """Rows of length one; the largest entry is scaled first, so that the square of a tiny one is not zero."""
    rows = gradient.detach().flatten(1).double()
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    return nn.functional.normalize(rows, dim=1)
