"""Cells of a Liberty file: areas, pins, capacitances and logic functions.

The reader reads what a gate-level simulation needs, and the mean energy of power tables. It skips
the rest, such as tables of delays.
Functions are parsed and never run as code, because the file may come from any source.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Cell", "LibertyError", "Library", "Pin", "evaluate", "parse_function", "pins_of"]

Expression = tuple[Any, ...]
"""``("pin", name)``, ``("constant", bool)``, ``("not", e)``, or ``and``, ``or``, ``xor`` of two."""
Words = npt.NDArray[np.uint64]

_STRING = r'"(?:[^"\\]|\\.)*"'
_BLANK = re.compile(r"(?:\s|;|\\\r?\n|/\*.*?\*/|//[^\n]*)+", re.S)
_STATEMENT = re.compile(
    rf"\s*([\w.\[\]]+)\s*(?:\(((?:{_STRING}|[^()\"])*)\)[^\S\n]*(\{{)?"  # name(values) {{?
    rf"|:\s*({_STRING}|[^;\n}}\"]*))"  # name : value
    r"|\s*(\})",
    re.S,
)
_BRACE = re.compile(rf"[{{}}]|{_STRING}|/\*.*?\*/|//[^\n]*", re.S)
_NOT_PARSED = frozenset(("timing", "internal_power", "leakage_power", "wire_load"))
_TABLE = re.compile(
    rf"\b(rise_power|fall_power|power)\s*\([^()]*\)\s*\{{((?:{_STRING}|[^{{}}\"])*)\}}", re.S
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_DEEPEST = 16
_SYMBOL = re.compile(r"\s*([A-Za-z_][\w.\[\]$]*|[01]|[!'^&*|+()])")


class LibertyError(ValueError):
    """A text that is no Liberty library, or that uses a feature which this reader does not know."""


@dataclass(frozen=True)
class Pin:
    """A pin of a library cell."""

    direction: str
    capacitance: float | None = None
    """Capacitive load of an input, in farads; None if the library does not have it."""
    function: Expression | None = None
    """Function of an output, of input pins and state variables."""
    energy: float | None = None
    """Energy inside the cell when the pin toggles, in joules; None if the library does not have it.
    It is the mean of rise and fall, over all related pins, conditions and loads, at the middle
    input slew of the tables."""


@dataclass(frozen=True)
class Cell:
    """A cell: combinational, or a register that takes the rising edge of a clock."""

    name: str
    area: float
    pins: Mapping[str, Pin]
    clock: str | None = None
    """Name of a register's clock pin."""
    next_state: Expression | None = None
    states: tuple[str, ...] = ()
    """Names of a register's state and of its complement in functions."""
    unsupported: str = ""
    """The reason why the cell cannot be simulated; empty if it can be."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the output pins that have a function."""
        return tuple(name for name, pin in self.pins.items() if pin.function is not None)


@dataclass(frozen=True)
class Library:
    """The cells of a Liberty file by name."""

    cells: Mapping[str, Cell]
    voltage: float | None
    """Supply voltage in volts; None if the library does not have it."""

    @classmethod
    def read(cls, path: Path) -> "Library":
        """Return the library in a file, see :meth:`parse`."""
        return cls.parse(path.read_text(encoding="utf-8", errors="replace"))

    @classmethod
    def parse(cls, text: str) -> "Library":
        """Return the library that a text describes.

        Raises
        ------
        LibertyError
            If the text isn't one Liberty library.
        """
        libraries = [group for group in _parse(text).groups if group.kind == "library"]
        if len(libraries) != 1:
            raise LibertyError(f"A Liberty file holds one library, not {len(libraries)}.")
        (library,) = libraries
        farads = _capacitance_unit(library)
        cells = [_cell(group, farads, library) for group in library.of_kind("cell")]
        conditions = {group.name: group for group in library.of_kind("operating_conditions")}
        chosen = conditions.get(library.values.get("default_operating_conditions", ""), library)
        voltage = chosen.number("voltage")
        return cls(
            {cell.name: cell for cell in cells},
            library.number("nom_voltage") if voltage is None else voltage,
        )


@dataclass
class _Group:
    """A group ``kind (names) { values and groups }``."""

    kind: str
    names: list[str]
    values: dict[str, str] = field(default_factory=dict)
    groups: list["_Group"] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    """Texts of the group's own groups ``internal_power``."""

    @property
    def name(self) -> str:
        return self.names[0]

    def of_kind(self, kind: str) -> list["_Group"]:
        return [group for group in self.groups if group.kind == kind and group.names]

    def number(self, name: str) -> float | None:
        """Return a value as a number, or None if it is missing."""
        if name not in self.values:
            return None
        try:
            value = float(self.values[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise LibertyError(f"Attribute {name} must be a number, not '{self.values[name]}'.")
        return value


def _parse(text: str) -> _Group:
    """Return the whole file as a group without a name."""
    stack = [_Group("", [])]
    position = 0
    while True:
        blank = _BLANK.match(text, position)
        position = blank.end() if blank else position
        if position == len(text):
            break
        statement = _STATEMENT.match(text, position)
        if statement is None:
            raise LibertyError(f"This is no Liberty statement: {text[position : position + 40]!r}")
        position = statement.end()
        name, arguments, opening, value, closing = statement.groups()
        if closing:
            if len(stack) == 1:
                raise LibertyError("A closing brace of the Liberty file has no opening one.")
            stack.pop()
        elif value is not None:
            stack[-1].values[name] = value.strip().strip('"')
        elif opening and name in _NOT_PARSED:
            end = _end_of_group(text, position)
            if name == "internal_power":
                stack[-1].tables.append(text[position:end])
            position = end
        elif opening:
            if len(stack) > _DEEPEST:
                raise LibertyError(f"Groups of the Liberty file nest deeper than {_DEEPEST}.")
            group = _Group(name, _names(arguments))
            stack[-1].groups.append(group)
            stack.append(group)
        else:
            stack[-1].values[name] = ",".join(_names(arguments))
    if len(stack) > 1:
        raise LibertyError(f"Group '{stack[-1].kind}' of the Liberty file doesn't end.")
    return stack[0]


def _names(arguments: str) -> list[str]:
    return [name for word in arguments.split(",") if (name := word.strip().strip('"').strip())]


def _end_of_group(text: str, position: int) -> int:
    depth = 1
    for match in _BRACE.finditer(text, position):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    raise LibertyError("A group of the Liberty file doesn't end.")


def _mean_energy(tables: list[str]) -> float | None:
    """Return the mean of all tables in a pin's groups ``internal_power``; None without tables."""
    means: list[float] = []
    for text in tables:
        for kind, body in _TABLE.findall(text):
            indices = re.findall(r"\bindex_[12]\s*\(([^()]*)\)", body)
            values = re.search(r"\bvalues\s*\(([^()]*)\)", body)
            numbers = [float(number) for number in _NUMBER.findall(values[1] if values else "")]
            if not numbers:
                raise LibertyError(f"A table {kind} of the Liberty file has no values.")
            rows = len(_NUMBER.findall(indices[0])) if indices else 1
            if len(numbers) % rows:
                raise LibertyError(f"A table {kind} of the Liberty file is no rectangle.")
            width = len(numbers) // rows
            middle = rows // 2
            means.append(sum(numbers[middle * width : (middle + 1) * width]) / width)
    return sum(means) / len(means) if means else None


def _capacitance_unit(library: _Group) -> float:
    number, _, unit = library.values.get("capacitive_load_unit", "1,pf").partition(",")
    scales = {"ff": 1e-15, "pf": 1e-12, "nf": 1e-9}
    try:
        return float(number) * scales[unit.lower()]
    except (ValueError, KeyError):
        raise LibertyError(
            f"Capacitive_load_unit must be a number of ff, pf or nf, not '{number} {unit}'."
        ) from None


def _cell(group: _Group, farads: float, library: _Group) -> Cell:
    unsupported = ""
    pins: dict[str, Pin] = {}
    for kind in ("bus", "bundle", "latch", "latch_bank", "ff_bank", "statetable"):
        if any(inner.kind == kind for inner in group.groups):
            unsupported = f"it has a {kind}"
    for inner in group.of_kind("pin"):
        direction = inner.values.get("direction", "")
        capacitance = inner.number("capacitance")
        if capacitance is None and direction == "input":
            capacitance = library.number("default_input_pin_cap")
        energy = _mean_energy(inner.tables)
        function = None
        if "three_state" in inner.values:
            unsupported = "it has a three-state output"
        elif "function" in inner.values and direction == "output":
            try:
                function = parse_function(inner.values["function"])
            except LibertyError as error:
                unsupported = str(error)
        for name in inner.names:
            pins[name] = Pin(
                direction,
                None if capacitance is None else capacitance * farads,
                function,
                # In units of the unit of capacitance times square volts.
                None if energy is None else energy * farads,
            )
    clock, next_state, states = None, None, ()
    for register in group.of_kind("ff"):
        states = tuple(register.names)
        missing = {"clocked_on", "next_state"} - set(register.values)
        more = {"clear", "preset"} & set(register.values)
        if missing or more:
            unsupported = f"its register has {'no ' if missing else ''}{min(missing or more)}"
            continue
        try:
            edge = parse_function(register.values["clocked_on"])
            next_state = parse_function(register.values["next_state"])
        except LibertyError as error:
            unsupported = str(error)
            continue
        if edge[0] != "pin":
            unsupported = "its register doesn't take the rising edge of a pin"
        clock = str(edge[1])
    known = set(pins) | set(states)
    functions = [pin.function for pin in pins.values() if pin.function] + [next_state or ()]
    if not unsupported and any(pins_of(function) - known for function in functions):
        unsupported = "a function of it names no pin"
    area = group.number("area") or 0.0
    return Cell(group.name, area, pins, clock, next_state, states, unsupported)


def parse_function(text: str) -> Expression:
    """Return the expression of a Liberty function.

    ``!a`` and ``a'`` invert; ``^`` is exclusive or; ``&``, ``*`` and a blank are and; ``|`` and
    ``+`` are or. They bind in this order.

    Raises
    ------
    LibertyError
        If the text is not a Liberty function.
    """
    symbols: list[str] = []
    position = 0
    stripped = text.strip()
    while position < len(stripped):
        match = _SYMBOL.match(stripped, position)
        if match is None:
            raise LibertyError(f"'{text}' is no Liberty function.")
        symbols.append(match[1])
        position = match.end()
    symbols.append("")
    place = 0
    depth = 0

    def take() -> str:
        nonlocal place
        place += 1
        return symbols[place - 1]

    def factor() -> Expression:
        nonlocal depth
        symbol = take()
        depth += 1
        if depth > 200:
            raise LibertyError("A Liberty function nests too deep.")
        if symbol == "!":
            result: Expression = ("not", factor())
        elif symbol == "(":
            result = either()
            if take() != ")":
                raise LibertyError(f"'{text}' is no Liberty function.")
        elif symbol in ("0", "1"):
            result = ("constant", symbol == "1")
        elif symbol[:1].isalpha() or symbol.startswith("_"):
            result = ("pin", symbol)
        else:
            raise LibertyError(f"'{text}' is no Liberty function.")
        depth -= 1
        while symbols[place] == "'":
            take()
            result = ("not", result)
        return result

    def exclusive() -> Expression:
        result = factor()
        while symbols[place] == "^":
            take()
            result = ("xor", result, factor())
        return result

    def both() -> Expression:
        result = exclusive()
        while symbols[place] not in ("", ")", "|", "+"):
            if symbols[place] in ("&", "*"):
                take()
            result = ("and", result, exclusive())
        return result

    def either() -> Expression:
        result = both()
        while symbols[place] in ("|", "+"):
            take()
            result = ("or", result, both())
        return result

    expression = either()
    if place != len(symbols) - 1:
        raise LibertyError(f"'{text}' is no Liberty function.")
    return expression


def pins_of(expression: Expression) -> set[str]:
    """Return the names of the pins that an expression reads."""
    if expression[:1] == ("pin",):
        return {expression[1]}
    return set().union(*(pins_of(part) for part in expression[1:] if isinstance(part, tuple)))


def evaluate(expression: Expression, values: Mapping[str, Words]) -> Words:
    """Return an expression's value for every bit of its pins' words, which have one shape."""
    match expression:
        case ("pin", name):
            return values[name]
        case ("not", part):
            return ~evaluate(part, values)
        case ("and", left, right):
            return evaluate(left, values) & evaluate(right, values)
        case ("or", left, right):
            return evaluate(left, values) | evaluate(right, values)
        case ("xor", left, right):
            return evaluate(left, values) ^ evaluate(right, values)
        case ("constant", value):
            return np.full_like(next(iter(values.values())), 2**64 - 1 if value else 0)
        case _:
            raise LibertyError(f"{expression!r} is no expression.")
