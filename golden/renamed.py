"""Names that were given up in 0.2: an old one is refused in a sentence that gives the new one."""

from collections.abc import Collection, Mapping

__all__ = ["FLAGS", "PARAMETERS", "VALUES", "new_choice", "new_name", "new_parameter"]

PARAMETERS: Mapping[str, str] = {"gates": "gate_order"}
"""Parameters of designs, old name to new."""

VALUES: Mapping[tuple[str, str], str] = {("scales", "fixed"): "any"}
"""Choices of a parameter or an option, by its name and their old name."""

FLAGS: Mapping[str, str] = {"--fixed": "--image-inside", "--gates": "--gate-order"}
"""Options of the command line, old name to new."""


def new_name(old: str, new: str) -> str:
    """The sentence that refuses an old name."""
    return f"{old} is called {new} since 0.2; use that name."


def new_choice(name: str, value: object, choices: Collection[str]) -> str | None:
    """The sentence that refuses the old name of a choice; None for any other value."""
    new = VALUES.get((name, str(value)))
    return new_name(f"{name} '{value}'", f"'{new}'") if new in choices else None


def new_parameter(name: str, known: Collection[str]) -> str | None:
    """The sentence that refuses the old name of a parameter; None for any other name."""
    new = PARAMETERS.get(name)
    return new_name(f"Parameter '{name}'", f"'{new}'") if new in known else None
