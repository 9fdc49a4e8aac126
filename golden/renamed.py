"""Old names that 0.2 replaced: each is refused in a sentence that gives the new name."""

from collections.abc import Collection, Mapping

__all__ = ["FLAGS", "KEYWORDS", "PARAMETERS", "VALUES", "new_choice", "new_name", "new_parameter"]

PARAMETERS: Mapping[str, str] = {"gates": "gate_order"}
"""New names of designs' parameters by their old names."""

VALUES: Mapping[tuple[str, str], str] = {("scales", "fixed"): "any"}
"""New names of choices, by the name of the parameter or option and the old choice."""

FLAGS: Mapping[str, str] = {"--fixed": "--image-inside", "--gates": "--gate-order"}
"""New names of the command line's options by their old names."""

KEYWORDS: Mapping[str, str] = {"fixed": "image_inside", "parameters_inside": "image_inside"}
"""New names of the keywords of `fewbit.generate` by their old names."""


def new_name(old: str, new: str) -> str:
    """Return the sentence that refuses an old name."""
    return f"{old} is called {new} since 0.2; use that name."


def new_choice(name: str, value: object, choices: Collection[str]) -> str | None:
    """Return the sentence that refuses the old name of a choice; None for any other value."""
    new = VALUES.get((name, value)) if isinstance(value, str) and value not in choices else None
    return new_name(f"{name} '{value}'", f"'{new}'") if new in choices else None


def new_parameter(name: str, known: Collection[str]) -> str | None:
    """Return the sentence that refuses the old name of a parameter; None for any other name."""
    new = PARAMETERS.get(name) if name not in known else None
    return new_name(f"Parameter '{name}'", f"'{new}'") if new in known else None
