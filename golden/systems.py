"""The number systems: one object for each, and the registry of all.

A number system has an LSTM (`fewbit.golden.lstm.contract.Lstm`), a quantiser that makes this LSTM
from a real one, the quantiser's options, the contract of the layer that runs the LSTM, and the name
of that layer's design. A user's own package adds a number system and its design by
:func:`fewbit.hdl.systems.register`: see the page "Adding a number system" of the manual.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import Rounding
from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_dynamic import int8_layer_of
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.floatsd8 import (
    FEWEST_PRODUCTS,
    HIGHEST_WINDOW,
    LOWEST_WINDOW,
    MOST_PRODUCTS,
    FloatSD8Lstm,
)
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.kinds import check_kind, check_kind_is_free, register_kind
from fewbit.golden.lstm.ternary import (
    HIGHEST_ACTIVATION_WIDTH,
    LOWEST_ACTIVATION_WIDTH,
    MOST_EXPONENTS,
    ScaleKind,
    TernaryLstm,
    WeightKind,
)
from fewbit.golden.parameter import Parameter, Value
from fewbit.golden.quantize import floatsd8, int8, ternary_lstm
from fewbit.golden.words import command_name

if TYPE_CHECKING:
    from fewbit.golden.network import Network

__all__ = [
    "SYSTEMS",
    "ModelLayer",
    "NumberSystem",
    "Option",
    "check_system",
    "layer_of",
    "listed",
    "options_by_name",
    "register_system",
    "system_of",
]


_TAKEN_BY_QUANTIZE = frozenset({"help", "model", "lstm", "to", "calibrate", "out", "done"})
_TAKEN_BY_RUN = frozenset(
    {"help", "model", "lstm", "input", "output", "backend", "activation", "real"}
)
"""Names of the commands' own options, which no number system may use."""


def _is_layer_contract(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, LayerContract)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


@dataclass(frozen=True)
class Option:
    """An option of a quantiser that its user sets: a whole number, or one of some words.

    Parameters
    ----------
    name
        The keyword of the option, and with ``-`` for ``_`` its name in ``fewbit quantize``.
    meaning
        The effect of the option, in a few words.
    default
        The value where the user sets none.
    minimum, maximum
        The range of a whole number.
    choices
        The allowed words; empty for a whole number.
    none_means
        The meaning of ``none``; None where the option must be a number.
    keyword
        The keyword in the quantiser's signature, if it differs from `name`.

    Raises
    ------
    TypeError
        If the entry is not an option that the command line can offer.
    """

    name: str
    meaning: str
    default: Value
    minimum: int = 1
    maximum: int = 1 << 30
    choices: tuple[str, ...] = ()
    none_means: str | None = None
    keyword: str = ""

    def __post_init__(self) -> None:
        """Refuse an entry that the command line could not offer."""
        if not _is_word(self.name) or self.name in _TAKEN_BY_QUANTIZE:
            raise TypeError(f"An option's name must be a free word, not {self.name!r}.")
        if isinstance(self.choices, str) or not all(map(_is_word, self.choices)):
            raise TypeError(f"The choices of option '{self.name}' must be words, in a tuple.")
        # Making the parameter checks the other fields.
        _ = self.parameter

    @property
    def parameter(self) -> Parameter:
        """Return the option as a parameter, which checks values and shows the range."""
        numbers = (None, None) if self.choices else (self.minimum, self.maximum)
        return Parameter(
            f"--{self.name.replace('_', '-')}",
            self.default,
            self.meaning,
            *numbers,
            choices=self.choices,
            none_means=self.none_means,
        )

    @property
    def help(self) -> str:
        """Return the text about the option in the command line's help."""
        default = "none" if self.default is None else self.default
        if self.choices:
            return f"{self.meaning}; default {default}"
        none = f", or none for {self.none_means}" if self.none_means else ""
        return f"{self.meaning}, {self.minimum} to {self.maximum}{none}; default {default}"


@dataclass(frozen=True)
class NumberSystem:
    """A number system: its LSTM, its quantiser, and the layer that runs it.

    Parameters
    ----------
    name
        The name that the user types, as in ``fewbit quantize --to NAME``.
    lstm
        The class of its layers.
    quantize
        A function of a network of real layers, calibration sequences of shape (batch, time,
        inputs), the options by their keywords, and ``done``, which it calls after every layer. It
        returns the network of `lstm` layers.
    options
        The options of the quantiser.
    layer
        The contract of the layer that runs an LSTM of the system.
    design
        Name of that layer's design.
    layer_of
        A function that makes the contract for a model and for the parameters in
        `LayerContract.chosen`, by name. The default is the contract's own ``of``.

    Raises
    ------
    TypeError
        If a part is missing or abstract.
    """

    name: str
    lstm: type[Lstm]
    quantize: Callable[..., Network]
    layer: type[LayerContract[Any]]
    design: str
    options: tuple[Option, ...] = ()
    layer_of: Callable[..., LayerContract[Any]] | None = None

    def __post_init__(self) -> None:
        """Refuse an entry of the registry that lacks a part."""
        if not _is_word(self.name):
            raise TypeError(f"A number system's name must be a word, not {self.name!r}.")
        check_kind(self.lstm)
        self._check_quantizer()
        self._check_layer(self.layer)
        if not _is_word(self.design):
            raise TypeError(f"The number system '{self.name}' must name its layer's design.")

    def _check_layer(self, layer: Any) -> None:
        if not _is_layer_contract(layer):
            raise TypeError(f"The layer of '{self.name}' must be the class of a LayerContract.")
        name: str = layer.__name__
        if inspect.isabstract(layer):
            lacking = ", ".join(sorted(layer.__abstractmethods__))
            raise TypeError(f"{name} must define {lacking} before it is registered.")
        # Like dataclasses.is_dataclass, this looks for __dataclass_fields__ in the class.
        if "image" not in getattr(layer, "__dataclass_fields__", {}):
            raise TypeError(f"{name} must be a dataclass with a field 'image'.")
        taken = sorted(_TAKEN_BY_RUN.intersection(layer.chosen))
        if taken:
            raise TypeError(
                f"{name} must not leave '{taken[0]}' to choose: fewbit run uses the name."
            )

    def _check_quantizer(self) -> None:
        if not callable(self.quantize):
            raise TypeError(f"The number system '{self.name}' must have a quantiser.")
        given: Any = self.options
        if not all(isinstance(option, Option) for option in given):
            raise TypeError(f"The options of '{self.name}' must be Option objects.")
        names = [option.name for option in self.options]
        if len(set(names)) < len(names):
            raise TypeError(f"The options of '{self.name}' must have names of their own: {names}.")
        taken = inspect.signature(self.quantize).parameters
        if any(each.kind == each.VAR_KEYWORD for each in taken.values()):
            return
        for keyword in ("done", *(option.keyword or option.name for option in self.options)):
            if keyword not in taken:
                raise TypeError(f"The quantiser of '{self.name}' must take the keyword {keyword}.")

    def contract_of(self, model: Lstm, **chosen: Any) -> LayerContract[Any]:
        """Return the contract of the layer that runs a model.

        Parameters
        ----------
        model
            A layer of this system.
        chosen
            Parameters that the model leaves open, by name; those left out have their defaults.

        Raises
        ------
        ValueError
            If the layer has no such parameter, or can't run the model with it.
        """
        for name in chosen:
            if name not in self.layer.chosen:
                having = [each.name for each in SYSTEMS.values() if name in each.layer.chosen]
                of_others = f"only those of {listed(having)} have" if having else "no layer has"
                raise ValueError(
                    f"A layer of {self.lstm.title} weights has no {name}; {of_others}."
                )
        return (self.layer_of or self.layer.of)(model, **chosen)


SYSTEMS: dict[str, NumberSystem] = {}
"""All number systems by name."""


def register_system(system: NumberSystem) -> NumberSystem:
    """Register the golden side of a number system; the same one may be registered again.

    A package of a user's own calls :func:`fewbit.hdl.systems.register`, which adds the design as
    well.

    Raises
    ------
    TypeError
        If `check_system` refuses it.
    """
    check_system(system)
    register_kind(system.lstm)
    SYSTEMS[system.name] = system
    return system


def check_system(system: NumberSystem) -> None:
    """Refuse a number system that conflicts with one in the registry.

    Raises
    ------
    TypeError
        If another system has the same name or kind, another design runs LSTMs of its class, or one
        of its options is a word where another system has a number of that name.
    """
    for known in SYSTEMS.values():
        if known.lstm is system.lstm and (known.design, known.layer) != (
            system.design,
            system.layer,
        ):
            raise TypeError(
                f"{system.lstm.__name__} runs on {known.design} already; give the number system"
                f" '{system.name}' a class of its own."
            )
        for option in system.options:
            for other in known.options:
                if option.name == other.name and bool(option.choices) != bool(other.choices):
                    raise TypeError(
                        f"Option '{option.name}' of '{system.name}' must take"
                        f" {'words' if other.choices else 'numbers'}, as that of '{known.name}'"
                        " does; give it another name."
                    )
    if SYSTEMS.get(system.name, system) != system:
        raise TypeError(f"There is a number system '{system.name}' already; take another name.")
    check_kind_is_free(system.lstm)


def system_of(model: Lstm) -> NumberSystem:
    """Return the number system of a quantised layer, the first one registered for its class.

    Raises
    ------
    ValueError
        If the layer is real.
    """
    for system in SYSTEMS.values():
        if type(model) is system.lstm:
            return system
    if not model.is_quantised:
        raise ValueError(
            f"The model is a real one; quantise it first with {command_name('quantize')}."
        )
    raise ValueError(f"No number system is registered for {type(model).__name__}; register one.")


@dataclass(frozen=True)
class ModelLayer:
    """A layer's contract with the constants of the model that it runs.

    Parameters
    ----------
    design
        Name of the layer's design.
    contract
        The contract of the layer.
    constants
        The constants that the layer packs into its image.
    """

    design: str
    contract: LayerContract[Any]
    constants: Any

    @property
    def image(self) -> bytes:
        """Return the constants packed as bytes."""
        return self.contract.pack(self.constants)


def layer_of(model: Lstm, **chosen: Any) -> ModelLayer:
    """Return the layer that runs a model, with the model's constants.

    Parameters
    ----------
    model
        A quantised LSTM.
    chosen
        Parameters that the model leaves open, by name, such as ``lanes``. None stands for the
        default.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    system = system_of(model)
    given = {name: value for name, value in chosen.items() if value is not None}
    contract = system.contract_of(model, **given)
    return ModelLayer(system.design, contract, contract.constants_of(model))


def options_by_name() -> Mapping[str, dict[str, Option]]:
    """Return the options of all quantisers by name, each by the systems that have it."""
    found: dict[str, dict[str, Option]] = {}
    for system in SYSTEMS.values():
        for option in system.options:
            found.setdefault(option.name, {})[system.name] = option
    return found


def listed(names: list[str]) -> str:
    """Return names as a sentence lists them: with commas, and "and" before the last."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


_ACTIVATION = Option(
    "activation", "approximation of sigmoid and tanh", "table", choices=get_args(ActivationKind)
)
_FEW_BIT_OPTIONS = (
    _ACTIVATION,
    Option(
        "activation_width",
        "bits of inputs and hidden values",
        12,
        LOWEST_ACTIVATION_WIDTH,
        HIGHEST_ACTIVATION_WIDTH,
    ),
    Option(
        "scales",
        "scales of rows: any, or powers of two, which need no multipliers",
        "any",
        choices=get_args(ScaleKind),
    ),
)
_EXPONENTS = Option("exponents", "magnitudes beside 0", MOST_EXPONENTS, 1, MOST_EXPONENTS)

register_system(
    NumberSystem(
        "int8",
        Int8Lstm,
        int8.quantize_network,
        Int8LstmLayerContract,
        "int8_lstm_layer",
        (
            _ACTIVATION,
            Option(
                "rounding", "rounding of a requantisation", "double", choices=get_args(Rounding)
            ),
        ),
        int8_layer_of,
    )
)
register_system(
    NumberSystem(
        "floatsd8",
        FloatSD8Lstm,
        floatsd8.quantize_network,
        FloatSD8LstmLayerContract,
        "floatsd8_lstm_layer",
        (
            Option(
                "lanes",
                "products added at a time",
                FEWEST_PRODUCTS,
                FEWEST_PRODUCTS,
                MOST_PRODUCTS,
                keyword="products",
            ),
            Option(
                "window",
                "bits that a sum keeps",
                DEFAULT_WINDOW,
                LOWEST_WINDOW,
                HIGHEST_WINDOW,
                none_means="exact sums",
            ),
        ),
    )
)
for _weights in get_args(WeightKind):
    register_system(
        NumberSystem(
            _weights,
            TernaryLstm,
            partial(ternary_lstm.quantize_network, to=_weights),
            TernaryLstmLayerContract,
            "ternary_lstm_layer",
            _FEW_BIT_OPTIONS + ((_EXPONENTS,) if _weights == "pow2" else ()),
        )
    )
