"""A real model to a quantised one, calibrated on sequences."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError, check_target
from fewbit.golden.files.network import save_network
from fewbit.golden.network import Network
from fewbit.golden.parameter import ParameterError
from fewbit.golden.systems import SYSTEMS, NumberSystem, options_by_name
from fewbit.models import told

__all__ = ["quantize_to_file"]


def quantize_to_file(
    path: Path,
    network: Network,
    x: npt.NDArray[Any],
    target: Path,
    *,
    to: str = "int8",
    options: Mapping[str, Any] | None = None,
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Quantise a network, write it and return it.

    Parameters
    ----------
    path
        Of the real model, for errors.
    network
        The real model.
    x
        Calibration sequences, reals of shape (batch, time, inputs).
    target
        ``.npz`` file to write.
    to
        Name of a number system, a key of `fewbit.golden.systems.SYSTEMS`.
    options
        Those given, by the names of the system's options.
    done
        Called after every layer.

    Raises
    ------
    UsageError
        If the model is quantised already, an option doesn't go with the format, the sequences don't
        suit the model, or the file can't be written.
    """
    if network.quantised:
        raise UsageError(f"'{path}' is quantised already; give a real model.")
    system = SYSTEMS[to]
    given = _by_keyword(system, options or {})
    check_target(target)
    with told(), np.errstate(over="ignore", invalid="ignore"):
        quantised = system.quantize(network, x, **given, done=done)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_network(target, quantised)
    return quantised


def _by_keyword(system: NumberSystem, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the quantiser is given, refused where the system has no such option."""
    known = {option.name: option for option in system.options}
    given: dict[str, Any] = {}
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        option = known.get(name)
        if option is None:
            *others, last = options_by_name()[name]
            listed = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(f"{flag} goes with --to {listed}; leave it out.")
        number = None if value == "none" and option.none_means else value
        try:
            given[option.keyword or name] = option.parameter.check(number)
        except ParameterError as error:
            low = "" if option.choices else "from "
            allowed = option.parameter.allowed
            raise UsageError(f"{flag} must be {low}{allowed}, not {value}.") from error
    return given
