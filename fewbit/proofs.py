"""Proofs that a generated circuit equals its definition, for every input.

The circuit is the generated Verilog itself, with valid and ready high and wires in place of its
registers: so a pipeline without feedback becomes the function that it computes. The definition is a
second circuit, which is written from the contract alone: see `fewbit.claims`. A SAT solver looks
for an input on which the two differ.

Each proof also runs on a copy that is wrong in one bit for one single input, and must find that
input.
"""

import re
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbit.claims import Claim, claims_of
from fewbit.errors import UsageError
from fewbit.golden.contract import describe, random_codes
from fewbit.golden.operands import Operand, unpack
from fewbit.hdl.design import ConfiguredDesign
from fewbit.sim import yosys

__all__ = ["METHOD", "Proof", "claims_of_all", "prove", "prove_all"]

METHOD = "SAT"
"""The method's name: Yosys's ``sat``, which calls MiniSat, on the miter of both circuits."""

_SCRIPT = """\
read_verilog unit.v
{expose}
read_verilog circuit.v
read_verilog definition.v
proc -norom
flatten circuit
cd circuit
opt -full -nodffe -nosdff
techmap -map transparent.v
opt -full
select -assert-none t:$*dff* t:$*latch* t:$mem*
cd ..
miter -equiv -make_outputs -flatten definition circuit miter
hierarchy -top miter
opt -full
check -assert
sat -prove trigger 0 -show-ports miter
"""
# Enables and resets are constant, and are removed before the registers are; 'opt' must make no new
# ones. A register that feeds itself would leave a loop, about which a solver's answer means
# nothing: 'check' refuses it.

_TRANSPARENT = """\
(* techmap_celltype = "$dff" *)
module transparent (CLK, D, Q);
    parameter WIDTH = 1;
    parameter CLK_POLARITY = 1;
    input CLK;
    input [WIDTH-1:0] D;
    output [WIDTH-1:0] Q;
    assign Q = D;
endmodule
"""

_PROVEN = "SAT proof finished - no model found: SUCCESS!"
_REFUTED = "SAT proof finished - model found: FAIL!"


@dataclass(frozen=True)
class Proof:
    """The outcome of the attempt to prove a claim."""

    claim: Claim
    counterexample: tuple[str, ...]
    """An input for which the claim is false, in codes and reals; empty if it is proven."""
    broken_counterexample: tuple[str, ...]
    """The input on which the broken copy is wrong; empty if the solver has not found it."""
    seconds: float

    @property
    def proven(self) -> bool:
        """Return whether the claim holds for every input."""
        return not self.counterexample

    @property
    def broken_copy_refuted(self) -> bool:
        """Return whether the solver has found the fault in the broken copy."""
        return bool(self.broken_counterexample)

    @property
    def row(self) -> dict[str, Any]:
        """Return the proof as a row for JSON."""
        return {
            "design": self.claim.design,
            "property": self.claim.statement,
            "inputs": self.claim.inputs,
            "method": METHOD,
            "proven": self.proven,
            "broken_copy_refuted": self.broken_copy_refuted,
            "seconds": round(self.seconds, 1),
            "counterexample": list(self.counterexample),
            "broken_copy_counterexample": list(self.broken_counterexample),
        }


def claims_of_all(designs: Sequence[ConfiguredDesign], *, skip: bool = False) -> list[Claim]:
    """Return all claims of some designs, in their order.

    Parameters
    ----------
    designs
        The designs with their parameters.
    skip
        Whether designs without claims are passed over.

    Raises
    ------
    UsageError
        If a design has no claims, and is not passed over.
    """
    claims = {design.name: claims_of(design) for design in designs}
    without = [name for name, found in claims.items() if not found]
    if without and not skip:
        raise UsageError(f"There is nothing to prove of {', '.join(without)}; leave it out.")
    return [claim for found in claims.values() for claim in found]


def prove(claim: Claim) -> Proof:
    """Look for an input on which circuit and definition differ, in the circuit and a broken copy.

    Raises
    ------
    fewbit.sim.yosys.YosysError
        If Yosys is missing, or refuses the circuit, which must be a plain pipeline.
    """
    started = time.perf_counter()
    unit = claim.unit()
    counterexample = _differing_input(claim, unit, fault="1'b0")
    broken_counterexample = _differing_input(claim, unit, fault=_single_input(claim))
    return Proof(
        claim, counterexample, broken_counterexample, seconds=time.perf_counter() - started
    )


def prove_all(
    claims: Sequence[Claim], jobs: int, done: Callable[[Proof], None] = lambda proof: None
) -> list[Proof]:
    """Prove claims, several at a time, and return the proofs in the order of the claims.

    Parameters
    ----------
    claims
        The claims to prove.
    jobs
        The number of claims to work on at a time.
    done
        A function that is called with each proof when it is there.
    """
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(prove, claim) for claim in claims]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _differing_input(claim: Claim, unit: str, fault: str) -> tuple[str, ...]:
    """Return lines about an input on which circuit and definition differ, or none if all agree.

    ``fault`` is an expression of the inputs. Where it is 1, the lowest bit of the first result is
    inverted.
    """
    inputs = [f"input [{operand.width - 1}:0] {operand.name}" for operand in claim.operands]
    outputs = [f"output [{result.width - 1}:0] {result.name}" for result in claim.results]
    ports = ", ".join([*inputs, *outputs])
    first, *others = [result.name for result in claim.results]
    bound = [f".{name}({name})" for name in (*(o.name for o in claim.operands), *others)]
    circuit = f"""\
module intact ({ports});
    (* anyseq *) reg clk;
{claim.circuit}
endmodule

module circuit ({ports});
    wire [{claim.results[0].width - 1}:0] before_fault;
    intact intact (.{first}(before_fault), {", ".join(bound)});
    assign {first} = before_fault ^ {fault};
endmodule
"""
    expose = ""
    if claim.exposed:
        module = re.findall(r"^module (\w+)", unit, re.MULTILINE)[0]
        expose = f"cd {module}\nexpose {' '.join(f'w:{wire}' for wire in claim.exposed)}\ncd .."
    log = yosys.run(
        _SCRIPT.format(expose=expose),
        {
            "unit.v": unit,
            "circuit.v": circuit,
            "definition.v": f"module definition ({ports});\n{claim.definition}\nendmodule\n",
            "transparent.v": _TRANSPARENT,
        },
    )["log"]
    if _PROVEN in log:
        return ()
    if _REFUTED not in log:
        raise yosys.YosysError(f"Yosys decided nothing about {claim.design}: {claim.statement}.")
    return tuple(_told(claim, log))


def _single_input(claim: Claim) -> str:
    """Return an expression that is 1 for a single input, which the claim's name determines."""
    seed = zlib.crc32(f"{claim.design}: {claim.statement}".encode())
    rng = np.random.default_rng(seed)
    tests: list[str] = []
    for operand in claim.operands:
        codes = random_codes(rng, operand, 1).ravel().tolist()
        value = sum(code << lane * operand.format.width for lane, code in enumerate(codes))
        tests.append(f"({operand.name} == {operand.width}'h{value:x})")
    return f"({' & '.join(tests)})"


def _told(claim: Claim, log: str) -> list[str]:
    """Return the solver's model in codes and reals."""
    found = {
        # A bit that nothing depends on is printed as x.
        name: int(bits.replace("x", "0"), 2)
        for name, bits in re.findall(r"^  \\(\w+) +\S+ +\S+ +([01x]+)$", log, re.MULTILINE)
    }

    def line(title: str, operand: Operand, prefix: str) -> str:
        value = found.get(f"{prefix}_{operand.name}", 0)
        words = [[value >> low & 2**64 - 1 for low in range(0, operand.width, 64)]]
        codes = unpack([operand], np.array(words, np.uint64))
        return title + describe(operand, codes[operand.name][0])

    return [
        *(line("", operand, "in") for operand in claim.operands),
        *(line("circuit: ", result, "gate") for result in claim.results),
        *(line("definition: ", result, "gold") for result in claim.results),
    ]
