"""The table of what the sparsest network is like, and what stands above and below the tables."""

import msgspec
from synthetic import record

from fipbench.reports import boards, write
from fipbench.reports.tracks import sparsity
from fipbench.spec import sealed


def walked(seed, weights, layers):
    """A record whose curves end in these distances and zeros; layer names chosen to sort badly as text."""
    curve = {"weights": weights, "path": 2 * weights, "outputs": weights / 10}
    curve |= {f"layer/{name}": zeros for name, zeros in layers.items()}
    curves = {name: {"sparsity": [0.8, 0.99], "value": [0.0, value]} for name, value in curve.items()}
    return sealed(msgspec.structs.replace(record("fip", seed), curves=curves))


RECORDS = [
    walked(0, 1.0, {"2.weight": 0.98, "10.weight": 0.50}),
    walked(1, 1.2, {"2.weight": 0.99, "10.weight": 0.60}),
]


def test_means_and_intervals_of_the_last_values():
    [board] = boards(RECORDS)
    table = sparsity.end_table(board)
    assert table.caption.startswith("At 99 %:")
    assert table.columns[2:] == ("weights", "path", "outputs", "zeros in 2.weight, %", "zeros in 10.weight, %")
    # With two seeds the half-width is 12.7062 |a - b| / 2, the 97.5 % point of t with one degree of freedom.
    expected = ("1.100 ± 1.271", "2.200 ± 2.541", "0.110 ± 0.127", "98.50 ± 6.35", "55.00 ± 63.53")
    assert table.rows == (("1", "fip", *expected),)


def test_no_table_without_curves():
    [board] = boards([record("fip")])
    assert sparsity.end_table(board) is None


def test_protocol_and_selection_stand_above_the_tables_and_nothing_is_lost(tmp_path):
    [board] = boards(RECORDS)
    above, below = dict(sparsity.protocol(board)), dict(sparsity.reading(board))
    assert list(above) == ["Standing", "Data", "Network", "Budget", "Sparsities", "Selection", "Headline", "Seeds", "±"]
    assert list(below) == ["Ranks", "Comparison", "◆", "Cost", "Distances", "Version"]
    write(RECORDS, tmp_path, formats=("md", "html"))
    for file, table in (("digits-sparsity.md", "Score and cost:"), ("quick.html", "<caption>Score and cost")):
        page = (tmp_path / file).read_text(encoding="utf-8")
        for term in ("Budget", "Selection", "Sparsities"):
            assert 0 < page.index(term) < page.index(table)
        assert page.index("Comparison") > page.index(table)
