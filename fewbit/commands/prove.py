"""``fewbit prove``: proves circuits equal to their definitions."""

import argparse
import os
import sys

from fewbit.commands.arguments import Command, add_designs, add_json, add_settings, count
from fewbit.commands.display import console, progress, table_of, write_json
from fewbit.hdl.designs import DESIGNS
from fewbit.sim import yosys

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_designs(command)
    add_settings(command)
    command.add_argument(
        "--jobs",
        type=count,
        default=os.cpu_count() or 1,
        help="proofs at a time, default one a core",
    )
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    from fewbit.proofs import METHOD, claims_of_all, prove_all

    # Without names all designs are meant, and those without claims are passed over.
    wanted = claims_of_all(options.designs, skip=len(options.designs) == len(DESIGNS))
    yosys.warm_up()
    with progress("Proving", len(wanted)) as advance:
        proofs = prove_all(wanted, options.jobs, lambda proof: advance())
    table = table_of("design", "property", "inputs", "proven", "broken copy", "seconds", right=5)
    for proof in proofs:
        table.add_row(
            proof.claim.design,
            proof.claim.statement,
            f"2^{proof.claim.inputs}",
            "yes" if proof.proven else "[bold red]no[/]",
            "refuted" if proof.broken_copy_refuted else "[bold red]not found[/]",
            f"{proof.seconds:.1f}",
        )
    table.caption = f"{METHOD}, {yosys.version()}"
    console().print(table)
    for proof in proofs:
        name = f"{proof.claim.design}, {proof.claim.statement}"
        if proof.broken_copy_refuted:
            print("\n  ".join([f"{name}: broken copy refuted by", *proof.broken_counterexample]))
        else:
            print(f"{name}: the broken copy was not found out.", file=sys.stderr)
        if not proof.proven:
            text = "\n  ".join([f"{name}: refuted by", *proof.counterexample])
            print(text, file=sys.stderr)
    write_json(options.json, yosys.version(), [proof.row for proof in proofs])
    return 0 if all(proof.proven and proof.broken_copy_refuted for proof in proofs) else 1


COMMAND = Command(
    "prove", "prove circuits equal to their definitions, for every input", _add_arguments, _run
)
