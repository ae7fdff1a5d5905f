"""Git Re-Basin by weight matching (Ainsworth, Hayase & Srinivasa, 2023, Algorithm 1), then the straight line.

Hidden units of the second network are put in the order in which its weights lie nearest to the first's: layer after
layer in random order an assignment problem is solved, with the layers before and behind as they are, until nothing
changes. It needs no data.
"""

import torch
from fipbench.baselines._alignment import blocks, chain, matched, permuted

from fipbench.methods import connectivity


@connectivity(version="1")
def rebasin():
    """The line to the second network with its hidden units matched to the first's by their weights."""
    return lambda first, second, trial: [first, permuted(second, matching(first, second, trial.generator))]


def matching(first, second, generator):
    """For each hidden layer the order of the second network's units, shape (units,).

    Raises:
        ValueError: networks whose units cannot be put in another order.
    """
    a, b = blocks(chain(first)), blocks(chain(second))
    orders = [torch.arange(len(bias)) for _, bias in a[:-1]]
    changed = True
    while changed:
        changed = False
        for number in torch.randperm(len(orders), generator=generator).tolist():
            gain = _gain(a, b, orders, number)
            found = matched(gain)
            units = torch.arange(len(found))
            if float((gain[units, found] - gain[units, orders[number]]).sum()) > 1e-9 * float(gain.abs().max()):
                orders[number], changed = found, True
    return orders


def _gain(a, b, orders, number):
    """Inner products of the weights into, and out of, each unit of the first network with each of the second's."""
    into_a, bias_a = a[number]
    into_b, bias_b = b[number]
    if number:
        into_b = into_b[:, orders[number - 1]]
    out_a, out_b = a[number + 1][0], b[number + 1][0]
    if number + 1 < len(orders):
        out_b = out_b[orders[number + 1]]
    behind_a, behind_b = (out.transpose(0, 1).flatten(1) for out in (out_a, out_b))
    a_rows = torch.cat([into_a.flatten(1), behind_a, bias_a[:, None]], 1)
    b_rows = torch.cat([into_b.flatten(1), behind_b, bias_b[:, None]], 1)
    return torch.from_numpy(a_rows.numpy(force=True) @ b_rows.numpy(force=True).T)
