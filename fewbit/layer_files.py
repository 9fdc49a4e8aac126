"""The C header of a layer, and the sections of its data sheet on cycles and the image."""

from typing import Any

from fewbit.golden.layer.contract import CELL_BYTES, LayerContract
from fewbit.golden.layer.image import Plan
from fewbit.golden.layer.packets import Kind, Reply, Status
from fewbit.hdl.layer.cycles import StepCycles

__all__ = ["c_header", "cycles_section", "image_section"]


def c_header(name: str, contract: LayerContract) -> str:
    """Return the C header of a layer: packets, sizes, the image's sections and its checksum."""
    prefix = name.upper()
    schedule, plan = contract.schedule, contract.plan
    sizes = {
        "INPUTS": (contract.input_size, "bytes of an input vector"),
        "OUTPUTS": (contract.output_size, "bytes of a hidden vector"),
        "HIDDEN": (schedule.hidden, "cells"),
        "STATE_SIZE": (
            contract.state_size,
            f"bytes of a state: outputs, then cells of {CELL_BYTES}",
        ),
        "IMAGE_SIZE": (plan.size, "bytes of an image"),
    }
    lines = [
        f"/* Sizes, packets and image of {name}.",
        " *",
        f" * {_parameters(contract)}",
        " */",
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        *(f"#define {prefix}_{key} {value} /* {text} */" for key, (value, text) in sizes.items()),
        "",
        "/* TDEST of packets to the layer. */",
        *(f"#define {prefix}_{kind.name} {kind.value}" for kind in Kind),
        "",
        "/* TDEST of packets from the layer. */",
        *(
            f"#define {prefix}_REPLY_{reply.name} {reply.value}"
            for reply in Reply
            if reply != Reply.PASSES or contract.passes_size
        ),
        "",
        "/* The byte of a status packet. */",
        *(f"#define {prefix}_STATUS_{status.name} {status.value}" for status in Status),
        "",
        "/* Sections of the image: first byte, words, bytes of a word. */",
    ]
    for section in plan.sections:
        lines += [
            f"/* {section.meaning} */",
            f"#define {prefix}_{section.name.upper()}_OFFSET {plan.offset(section.name)}",
            f"#define {prefix}_{section.name.upper()}_WORDS {section.words}",
            f"#define {prefix}_{section.name.upper()}_WORD_SIZE {section.word_bytes}",
        ]
    lines += [
        "/* Of all bytes before it, high byte first. */",
        f"#define {prefix}_CHECKSUM_OFFSET {plan.offset('checksum')}",
        "",
        "/* CRC-16: polynomial 0x1021, start 0xFFFF. 0 for a whole image with its checksum. */",
        f"static inline uint16_t {name}_checksum(const uint8_t *bytes, size_t count)",
        "{",
        "    uint16_t checks = 0xFFFF;",
        "    for (size_t index = 0; index < count; index++) {",
        "        checks ^= (uint16_t)(bytes[index] << 8);",
        "        for (int bit = 0; bit < 8; bit++)",
        "            checks = (uint16_t)(checks << 1 ^ (checks & 0x8000 ? 0x1021 : 0));",
        "    }",
        "    return checks;",
        "}",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _parameters(contract: LayerContract) -> str:
    return ", ".join(f"{key} {value}" for key, value in contract.settings.items())


def cycles_section(step: StepCycles) -> dict[str, Any]:
    """Return the section of the data sheet on the cycles of a time step."""
    sheet = {} if step.least_cycles is None else {"cycles_low": step.least_cycles}
    return {
        "beats": step.beats,
        "cycles": step.cycles,
        **sheet,
        "interval": step.interval,
        "latency": {"first_byte": step.first_byte, "last_byte": step.last_byte},
        "utilisation": round(step.utilisation, 4),
        "exact": step.is_exact,
        "formula": _formula(step),
    }


def _formula(step: StepCycles) -> str:
    """Return the formula of a time step's cycles, a sum over its phases, as text."""
    terms: list[str] = []
    for phase in step.phases:
        terms.append(f"{phase.first} for the first group of neurons")
        if phase.groups > 1:
            terms.append(f"{phase.groups - 1} times {phase.period} for the others")
        if phase.normalising:
            terms.append(f"{phase.normalising} to normalise")
    known = "exactly" if step.is_exact else "at most"
    return (
        f"{known} {' + '.join(terms)} = {step.cycles} from step to step, while results are taken at"
        " once and vectors come in time" + (f"; {step.note}" if step.note else "")
    )


def image_section(plan: Plan) -> dict[str, Any]:
    """Return the section of the data sheet on the image."""
    return {
        "size": plan.size,
        "byte_order": "little; the checksum big",
        "sections": [
            {
                "name": section.name,
                "offset": plan.offset(section.name),
                "words": section.words,
                "word_bytes": section.word_bytes,
                "meaning": section.meaning,
            }
            for section in plan.sections
        ],
        "checksum": {
            "offset": plan.offset("checksum"),
            "algorithm": "CRC-16, polynomial 0x1021, start 0xFFFF, of all bytes before it",
        },
    }
