"""The quantisation of a real model, calibrated on sequences."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError
from fewbit.golden.network import Network
from fewbit.golden.parameter import ParameterError
from fewbit.golden.renamed import new_choice
from fewbit.golden.systems import SYSTEMS, NumberSystem, options_by_name
from fewbit.golden.words import option_name, plain, shown
from fewbit.models import told

__all__ = ["quantize_network"]


def quantize_network(
    network: Network,
    x: npt.NDArray[Any],
    *,
    name: str = "the network",
    to: str = "int8",
    options: Mapping[str, Any] | None = None,
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Return a quantised network of a real one.

    Parameters
    ----------
    network
        The real model.
    x
        Calibration sequences, reals of shape (batch, time, inputs).
    name
        The name of the real model in errors, such as its file's name in quotes.
    to
        The name of a number system, a key of `fewbit.golden.systems.SYSTEMS`.
    options
        The options that the user has set, by the names of the system's options.
    done
        A function that is called after every layer.

    Raises
    ------
    UsageError
        If there is no such number system, the model is quantised already, an option doesn't go with
        the system, or the sequences don't suit the model.
    """
    if network.quantised:
        raise UsageError(f"{name[0].upper()}{name[1:]} is quantised already; give a real model.")
    if not isinstance(to, str) or to not in SYSTEMS:
        raise UsageError(f"There is no number system {shown(to)}; there are {', '.join(SYSTEMS)}.")
    system = SYSTEMS[to]
    given = _by_keyword(system, options or {})
    with told(), np.errstate(over="ignore", invalid="ignore"):
        return system.quantize(network, x, **given, done=done)


def _by_keyword(system: NumberSystem, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as the quantiser's keywords; refuse one that the system does not have."""
    known = {option.name: option for option in system.options}
    given: dict[str, Any] = {}
    for name, value in options.items():
        flag = option_name(name)
        option = known.get(name)
        if option is None:
            known_by = options_by_name().get(name)
            if known_by is None:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise UsageError(f"The quantiser to {system.name} has no option '{name}'; {has}.")
            *others, last = known_by
            listed = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(f"{flag} goes with {option_name('to')} {listed}; leave it out.")
        try:
            given[option.keyword or name] = option.parameter.take(value)
        except ParameterError as error:
            low = "" if option.choices else "from "
            allowed = option.parameter.allowed
            raise UsageError(
                new_choice(name, value, option.choices)
                or f"{flag} must be {low}{allowed}, not {plain(value)}."
            ) from error
    return given
