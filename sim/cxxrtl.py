"""A rewriting of CXXRTL's C++, so that a compiler needs less time for it.

CXXRTL writes a whole circuit as one function, and g++'s time to optimise a function grows faster
than the function. Cut into member functions of a few statements, a layer compiles two to four times
faster, and runs as fast.
"""

import re
from collections.abc import Iterator

__all__ = ["in_parts"]

_EVAL = re.compile(r"^bool (\w+)::eval\(performer \*performer\) \{\n(.*?)^\}\n", re.M | re.S)
_DECLARED = "\tbool eval(performer *performer = nullptr) override;\n"
_LOCAL = re.compile(r"\tvalue<\d+> \w+;\n")
_CONVERGED = re.compile(r"\tbool (converged = (?:true|false);\n)")
_EDGE = re.compile(r"\tbool ((?:pos|neg)edge_\w+) = this->\1\(\);\n")
_TEMPORARY = re.compile(r"\btmp_\d+\b")


def in_parts(text: str, length: int = 8000) -> str:
    """Return the C++ of a flat circuit with its evaluation cut into functions.

    Each function has about `length` characters. The wires that were variables of the one function
    become members of the circuit; the statements and their order stay the same. A text that is too
    short, or that does not have CXXRTL's form of a flat circuit, is returned unchanged.
    """
    found = _EVAL.findall(text)
    if len(found) != 1 or text.count(_DECLARED) != 1:
        return text
    name, body = found[0]
    lines = body.splitlines(keepends=True)
    if lines[-1] != "\treturn converged;\n" or "performer" in body:
        return text
    converged = [line for line in lines if _CONVERGED.fullmatch(line)]
    edges = "".join(line for line in lines if _EDGE.fullmatch(line))
    wires = "".join(line for line in lines if _LOCAL.fullmatch(line))
    kept = (
        line
        for line in lines[:-1]
        if not any(pattern.fullmatch(line) for pattern in (_LOCAL, _CONVERGED, _EDGE))
    )
    parts = list(_cut(kept, length))
    temporaries = [set(_TEMPORARY.findall(part)) for part in parts]
    shared = sum(map(len, temporaries)) != len(set().union(*temporaries))
    if len(converged) != 1 or len(parts) < 2 or shared:
        return text
    start = _CONVERGED.sub(r"\t\1", converged[0])
    calls = "".join(f"\tpart_{number}();\n" for number in range(len(parts)))
    functions = [
        f"__attribute__((noinline)) void {name}::part_{number}() {{\n{edges}{part}}}\n\n"
        for number, part in enumerate(parts)
    ]
    functions.append(
        f"bool {name}::eval(performer *performer) {{\n{start}{calls}\treturn converged;\n}}\n"
    )
    members = "".join(f"\tvoid part_{number}();\n" for number in range(len(parts)))
    text = _EVAL.sub(lambda _: "".join(functions), text)
    return text.replace(_DECLARED, f"{_DECLARED}{wires}\tbool converged;\n{members}")


def _cut(lines: Iterator[str], length: int) -> Iterator[str]:
    """Yield pieces that begin where a comment opens a new statement, without the comments."""
    part: list[str] = []
    size = 0
    after_statement = False
    for line in lines:
        if line.startswith("\t//"):
            if after_statement and size >= length:
                yield "".join(part)
                part, size = [], 0
            after_statement = False
            continue
        part.append(line)
        size += len(line)
        after_statement = True
    if part:
        yield "".join(part)
