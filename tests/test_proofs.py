"""Proofs: right circuits are proven, wrong ones refuted with an input on which they are wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fewbit.golden.accumulate.term_sum import TermSumContract
from fewbit.golden.formats import Minifloat
from fewbit.hdl.accumulate.term_sum import TermSum
from fewbit.hdl.design import Design, Timing
from fewbit.hdl.designs import DESIGNS
from fewbit.proofs import Claim, claims_of, prove
from fewbit.sim.bulk import check_bulk
from fewbit.sim.yosys import YosysError
from tests.support import commands


def claims(name, **settings) -> list[Claim]:
    design = DESIGNS[name]
    return claims_of(design.configure(settings))


def with_fault(claim: Claim, right: str, wrong: str) -> Claim:
    """A claim about the unit with a piece of its Verilog replaced."""
    text = claim.unit()
    assert text.count(right) == 1, text
    return replace(claim, unit=lambda: text.replace(right, wrong))


def test_a_right_circuit_is_proven_and_its_broken_copy_refuted():
    (claim,) = claims("floatsd8_decode")
    proof = prove(claim)
    assert proof.row | {"seconds": 0} == {
        "design": "floatsd8_decode",
        "property": "nearest code",
        "inputs": 8,
        "method": "SAT",
        "proven": True,
        "broken_copy_refuted": True,
        "seconds": 0,
        "counterexample": [],
        "broken_copy_counterexample": list(proof.broken_counterexample),
    }
    number, circuit, definition = proof.broken_counterexample
    assert number.startswith("number = ")
    code = int(number.split()[2], 16)
    reals = claim.operands[0].format.decode(code)
    right = claim.results[0].format.encode(reals)
    assert definition.startswith(f"definition: result = {int(right):04x} (binary16: ")
    assert circuit.startswith(f"circuit: result = {int(right) ^ 1:04x} (binary16: ")


@pytest.mark.long
def test_a_sum_is_proven_at_small_widths():
    *_, claim = claims("floatsd8_mac")
    proof = prove(claim)
    assert proof.proven, proof.counterexample
    assert proof.broken_copy_refuted
    assert claim.inputs == 18


def test_a_sum_that_rounds_ties_up_is_refuted():
    *_, claim = claims("floatsd8_mac")
    wrong = with_fault(claim, "assign increment = staged_total[6] ?", "assign increment = 1'b1 ?")
    assert prove(wrong).counterexample


def test_a_wrong_mantissa_of_one_index_is_refuted_in_any_lane():
    product, *_ = claims("floatsd8_mac", products=2)
    text = product.unit()
    # Index 11 stands for 14; the second lane's comparison would read it as 11.
    assert text.count(">= 4'hb") == 2
    first = text.index(">= 4'hb") + 1
    wrong = text[:first] + text[first:].replace(">= 4'hb", ">= 4'hc", 1)
    proof = prove(replace(product, unit=lambda: wrong))
    assert not proof.proven
    weight = next(line for line in proof.counterexample if line.startswith("weight = "))
    assert int(weight.split()[2], 16) & 15 == 11


def test_a_circuit_with_feedback_is_refused():
    (claim,) = claims("ternary_accumulate")
    loop = replace(claim, circuit=claim.circuit.replace(".first(1'b1)", ".first(1'b0)"))
    assert loop.circuit != claim.circuit
    with pytest.raises(YosysError, match="problems in 'check -assert'"):
        prove(loop)


def test_the_sum_of_terms_equals_golden():
    parameters = {
        "accumulator_format": Minifloat(4, 3, bias=7, ieee=True),
        "terms": 3,
        "magnitude_bits": 4,
        "exponent_bits": 4,
        "place": 12,
        "window": 6,
    }
    design = Design(
        name="term_sum",
        summary="sum of floating-point terms",
        parameters=(),
        component=lambda contract: TermSum(contract, stages=2),
        contract=lambda: TermSumContract(**parameters),
        timing=lambda contract: Timing("2", "1"),
        transaction="beat",
    )
    outcome = check_bulk(design.configure(), count=100_000)
    assert outcome.passed, outcome.counterexample
    # All parts of a code's range are reached.
    contract = design.contract()
    codes = contract.compute(contract.stimulus(np.random.default_rng(1), 5000))["result"]
    assert len(np.unique(codes)) > 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 0}, "window must be a whole number from 1 to 48, not 0."),
        ({"terms": 0}, "terms must be a whole number from 1 to 64, not 0."),
        (
            {"accumulator_format": Minifloat(3, 2, 3)},
            (
                "The accumulator must be a format of IEEE 754's kind, which saturates below its top"
                " exponent, not e3m2."
            ),
        ),
    ],
)
def test_bad_terms_are_refused(changes, message):
    parameters = {
        "accumulator_format": Minifloat(3, 2, 3, ieee=True),
        "terms": 2,
        "magnitude_bits": 3,
        "exponent_bits": 3,
        "place": 7,
        "window": None,
    }
    with pytest.raises(ValueError) as error:  # noqa: PT011
        TermSumContract(**(parameters | changes))
    assert str(error.value) == message


def test_command(capsys, tmp_path):
    target = tmp_path / "rows.json"
    status, out, err = commands.run(
        capsys, "prove", "floatsd8_decode", "--set", "bias=26", "--json", target
    )
    assert (status, err) == (0, "")
    assert "broken copy refuted by\n  number = " in out
    report = json.loads(target.read_text())
    assert "yosys" in report["engine"]
    (row,) = report["rows"]
    assert (row["proven"], row["broken_copy_refuted"], row["inputs"]) == (True, True, 8)


def test_command_fails_with_a_wrong_circuit(capsys, monkeypatch):
    (claim,) = claims("floatsd8_decode")
    wrong = replace(
        claim,
        definition=claim.definition.replace("8'd77: nearest = 16'd", "8'd77: nearest = 16'd1"),
    )
    monkeypatch.setattr("fewbit.proofs.claims_of", lambda design: [wrong])
    status, out, err = commands.run(capsys, "prove", "floatsd8_decode")
    assert status == 1
    assert "floatsd8_decode, nearest code: refuted by\n  number = 4d (floatsd8: " in err
    assert "no" in out


def test_designs_without_proofs_are_told(capsys):
    status, _, err = commands.run(capsys, "prove", "int8_lstm_neuron", "floatsd8_decode")
    assert status == 2
    assert err == "There is nothing to prove of int8_lstm_neuron; leave it out.\n"
