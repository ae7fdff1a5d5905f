"""The committed boards come from the committed records, those from the code as it stands, and the README from both."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from fipbench import api, audit_store, claims, plan, registry, reports, store, worker
from fipbench.reports import overview, questions, verdicts
from fipbench.reports.searches import pages
from fipbench.spec import task_digest
from fipbench.spec.audits import VERSION
from fipbench.tracks import PROTOCOL_VERSIONS

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "leaderboards"
SEEDS = {
    "calibration-mnist-ensemble": 3,
    "calibration-permuted-mnist-1k": 3,
    "calibration-split-mnist-class": 3,
    "calibration-split-mnist-task": 3,
    "cifar10-20k-robustness": 5,
    "digits-connectivity": 10,
    "digits-robustness": 10,
    "digits-sparsity": 10,
    "lenet300-mnist-sparsity": 5,
    "lenet300-mnist-sparsity-paper": 5,
    "minilm-sst2-4k-sparsity": 3,
    "minilm-yelp-imdb-400-composition": 3,
    "mnist-cnn-connectivity": 5,
    "mnist-fashion-10k": 5,
    "permuted-mnist-2-lenet300": 5,
    "permuted-mnist-3-lenet300": 5,
    "permuted-mnist-5": 5,
    "permuted-mnist-5-lenet300": 5,
    "reviews-composition": 10,
    "reviews-sparsity": 10,
    "split-digits-5": 10,
    "split-mnist-5": 5,
    "splitcifar100-20x5-slim-10k": 3,
    "stars-to-sentiment": 10,
}
# Rows that were run of a task of the suite `paper`: those of its published numbers, and what stands beside them.
GEODESIC = {"der", "der++", "ewc", "fip", "geodesic", "joint", "l2", "linear-path", "naive", "replay"}
IN_PART = {
    "lenet300-mnist-sparsity-paper": {"dense", "random-untrained"},
    "permuted-mnist-2-lenet300": GEODESIC,
    "permuted-mnist-3-lenet300": GEODESIC,
    "permuted-mnist-5-lenet300": GEODESIC,
}


@pytest.fixture(scope="module")
def records():
    found, problems = store.read(BOARDS)
    assert not problems
    return found


@pytest.mark.parametrize("task", SEEDS)
def test_records_are_whole_and_of_todays_code(records, task):
    # An edited method, task or protocol must be run again before its numbers may stand here.
    found = registry.read_task(task)
    mine = [r for r in records if r.job.task == task]
    assert {r.job.task_digest for r in mine} == {task_digest(found, PROTOCOL_VERSIONS[found.track])}
    assert {r.status for r in mine} == {"ok"}
    known = {label for source in found.sources for label in source.variants}
    assert {label for r in mine for label in r.job.data_variant.split("+")} <= known
    rows = plan.task_rows(found, IN_PART.get(task))
    assert {r.job.label for r in mine} == {row.label for row in rows}
    for row in rows:
        seeds = {r.job.seed for r in mine if r.job.label == row.label and r.job.params == row.params}
        versions = {r.job.method_version for r in mine if r.job.label == row.label}
        assert seeds >= set(range(SEEDS[task])), row.label
        assert versions == {row.method.version}, f"{row.label}: run it again, its code has changed"


def test_records_come_from_committed_code(records):
    assert not [r.id for r in records if "+" in r.provenance["commit"] or len(r.provenance["commit"]) != 40]


def test_boards_render_again_to_the_byte(records, refresh, tmp_path):
    written = reports.write(records, tmp_path, formats=("md", "csv"), audits=refresh.audits_of(records))
    assert written
    written += verdicts.write(claims.judge(claims.load(), records), tmp_path, ("md", "csv"))
    for path in written:
        if path.suffix in (".md", ".csv"):
            assert path.read_bytes() == (BOARDS / path.name).read_bytes(), f"{path.name}: run `make leaderboards`"


def test_audits_are_whole_and_of_the_committed_records(records):
    audits, problems = audit_store.read(BOARDS)
    assert not problems
    orphans = audits.keys() - audit_store.matching(audits, records).keys()
    assert not orphans, "audit the new records, or remove the lines of the old ones"
    assert {audit.version for audit in audits.values()} <= {VERSION}


@pytest.fixture(scope="module")
def refresh():
    spec = importlib.util.spec_from_file_location("refresh", BOARDS / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_searches_render_again_to_the_byte(refresh):
    searches = refresh.searched()
    # Calibrations have the settings of their publications.
    used = [registry.search_of(name) for name in SEEDS if registry.read_task(name).tuned]
    assert {tuned.search.task for tuned in used} == set(searches)
    for name, content in pages(searches).items():
        if name.endswith(".md"):
            assert content.encode() == (BOARDS / name).read_bytes(), f"{name}: run `make leaderboards`"
        else:  # matplotlib's paths may differ between its releases, what a figure says in words may not
            said = re.search(r"<desc.*?</desc>", content, flags=re.DOTALL)
            assert said and said[0] in (BOARDS / name).read_text("utf-8"), f"{name}: run `make leaderboards`"


def test_the_questions_are_answered_from_the_records(records):
    again = questions.page(reports.boards(records))
    assert (BOARDS / "questions.md").read_text("utf-8") == again, "run `make leaderboards`"


def test_readme_says_what_the_records_say(records, refresh):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = refresh.results(records)
    assert all(f"(leaderboards/{task}.md)" in results for task in SEEDS)
    assert all(re.search(rf"\b{re.escape(task)}\b", results) for task in registry.task_files())
    assert refresh.with_results(readme, results) == readme, "run `make leaderboards`"


def test_what_the_readme_says_by_hand_of_the_boards_is_so(records):
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    real = [b for b in reports.boards(records) if not {"quick", "calibration"} & set(b.suites) and len(b.rows) > 1]
    won = [line[0] for line in overview.standings(real) if line[5][0] == "+" and float(line[6].lstrip("< ")) < 0.05]
    assert "**The one win is no larger than the search's noise.** On permuted-mnist-5 " in readme
    assert won == ["permuted-mnist-5"]
    [board] = [board for board in real if board.task == "permuted-mnist-5"]
    mean = {row.label: row.metrics[board.headline].mean for row in board.rows}
    assert mean["fip"] - mean["fip-logits"] > mean["fip"] - mean["der++"] > 0
    assert "On the three LeNet boards of permuted MNIST `der` has the higher mean." in readme
    assert "on none of the three boards is the geodesic told apart from plain fine-tuning" in readme
    lenet = [board for board in real if re.fullmatch("permuted-mnist-.-lenet300", board.task)]
    assert len(lenet) == 3
    for board in lenet:
        rows = {row.label: row for row in board.rows}
        assert rows["der"].metrics[board.headline].mean > rows["fip"].metrics[board.headline].mean
        assert rows["geodesic"].rank_last == len(board.sections[0].ranked)  # no row is found worse
    paper = {board.task for board in reports.boards(records) if "paper" in board.suites}
    assert "those of permuted MNIST, and of LeNet-300-100 unpruned and untrained" in readme
    assert paper == {board.task for board in lenet} | {"lenet300-mnist-sparsity-paper"}


def test_the_board_that_the_statistics_page_explains_is_the_committed_one():
    [shown] = re.findall(r"```\n( +#  method.*?)```", (ROOT / "docs/statistics.md").read_text("utf-8"), flags=re.DOTALL)
    board = (BOARDS / "permuted-mnist-5.md").read_text("utf-8")
    for line in shown.splitlines()[1:]:
        rank, method, *cells = re.split(r"  +", line.strip())
        row, *_ = [row for row in board.splitlines() if re.match(rf"\| +{rank} \| {re.escape(method)} +\|", row)]
        assert not [cell for cell in cells if cell not in row], (line, row)


def test_networks_are_worth_the_name(records):
    def mean(task, label, metric):
        found = [r.metrics[metric] for r in records if r.job.task == task and r.job.label == label]
        return sum(found) / len(found)

    assert mean("digits-sparsity", "dense", "dense_accuracy") >= 0.97
    assert mean("digits-robustness", "single", "clean") >= 0.97
    assert mean("reviews-sparsity", "dense", "dense_accuracy") > mean("reviews-sparsity", "dense", "tfidf/1") + 0.1
    for task in (1, 2):
        words = mean("stars-to-sentiment", "joint", f"tfidf/{task}")
        assert mean("stars-to-sentiment", "joint", f"final/class/{task}") > words + 0.1


@pytest.mark.parametrize("task", [name for name in SEEDS if "quick" in registry.read_task(name).suites])
def test_no_quick_task_is_at_chance_or_saturated_for_all(records, task):
    headline = registry.read_task(task).headline
    means = {}
    for label in {r.job.label for r in records if r.job.task == task and r.job.role != "reference"}:
        found = [r.metrics[headline] for r in records if r.job.task == task and r.job.label == label]
        means[label] = sum(found) / len(found)
    assert max(means.values()) - min(means.values()) > 0.01, means


# The cheapest job of each quick task that passes through what the task is about.
GOLDEN = {
    "digits-sparsity": ("lth", {}),
    "reviews-composition": ("naive", {}),
    "reviews-sparsity": ("magnitude", {}),
    "split-digits-5": ("fip", {"memory": 10}),
    "stars-to-sentiment": ("naive", {}),
    "digits-connectivity": ("fip", {}),
    "digits-robustness": ("single", {}),
}


def test_every_quick_task_has_a_golden_job():
    assert set(GOLDEN) == {name for name in SEEDS if "quick" in registry.read_task(name).suites}


@pytest.mark.parametrize("task", GOLDEN)
def test_a_committed_job_gives_its_number_again(records, task, tmp_path):
    """When a number moves, a version must: of the task, of the protocol, or of the method.

    To the bit on the machine that made it; another processor may round otherwise, but counts alike.
    """
    label, wanted = GOLDEN[task]
    tickets = plan.tickets(api.request(task, methods=[label], seeds=1, results=tmp_path))
    [ticket] = [ticket for ticket in tickets if wanted.items() <= ticket.job.params.items()]
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    again = worker.run(ticket, lambda event: None)  # here: a server of its own would import all libraries anew
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])
    [kept] = [r for r in records if r.id == again.id]
    headline = registry.read_task(task).headline
    assert abs(again.metrics[headline] - kept.metrics[headline]) < 0.01
    assert again.metrics.keys() == kept.metrics.keys() and again.curves.keys() == kept.curves.keys()
    for field in ("forward_examples", "backward_examples", "parameters_stored", "examples_stored"):
        assert getattr(again.cost, field) == getattr(kept.cost, field)
