"""The method keeps what fipbench asks of every method."""

from pathlib import Path

from fipbench.conformance import examine

METHOD = Path(__file__).with_name("fipbench_lambda.py")


def test_it_keeps_the_contract():
    findings = list(examine(str(METHOD)))
    assert len(findings) > 1
    assert not [f"{finding.check}: {finding.wrong}" for finding in findings if finding.wrong]
