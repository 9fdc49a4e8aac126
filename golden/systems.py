"""The number systems: each one object, and the registry of all.

A number system is an LSTM (`fewbit.golden.lstm.contract.Lstm`), a quantiser that makes it of a real
one, the options that the quantiser has, and the contract of the layer that runs it, with the name
of that layer's design. A package of a user's own adds one, with the design, by
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
"""Words that the commands have for other options."""


def _is_layer_contract(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, LayerContract)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


@dataclass(frozen=True)
class Option:
    """A choice that a quantiser leaves to its user: a whole number, or one of some words.

    Parameters
    ----------
    name
        Its keyword, and with ``-`` for ``_`` the option of ``fewbit quantize``.
    meaning
        What is chosen, in a few words.
    default
        What the quantiser takes where nothing is said.
    minimum, maximum
        The range of a whole number.
    choices
        The words that it takes, where it takes words.
    none_means
        What ``none`` stands for; None where a number must be given.
    keyword
        The quantiser's own keyword where that is another.

    Raises
    ------
    TypeError
        If the entry says no such choice.
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
        # The parameter checks the rest.
        _ = self.parameter

    @property
    def parameter(self) -> Parameter:
        """The same as a parameter, which checks values and tells the range."""
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
        """What the command line's help says of it."""
        default = "none" if self.default is None else self.default
        if self.choices:
            return f"{self.meaning}; default {default}"
        none = f", or none for {self.none_means}" if self.none_means else ""
        return f"{self.meaning}, {self.minimum} to {self.maximum}{none}; default {default}"


@dataclass(frozen=True)
class NumberSystem:
    """A number system of LSTMs.

    Parameters
    ----------
    name
        What the user calls it, as in ``fewbit quantize --to NAME``.
    lstm
        The class of its layers.
    quantize
        Takes a network of real layers, calibration sequences of shape (batch, time, inputs), the
        options by their keywords and ``done``, which it calls after every layer; gives the network
        of `lstm` layers.
    options
        What the quantiser leaves to choose.
    layer
        The contract of the layer that runs an LSTM of the system.
    design
        Name of that layer's design.
    layer_of
        Makes the contract for a model, with parameters of `LayerContract.chosen` by name; the
        contract's ``of`` where nothing is given.

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
        """Refuse an entry that lacks a part."""
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
        # __dataclass_fields__ is what dataclasses.is_dataclass asks for, in its own class.
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
        """The contract of the layer that runs a model.

        Parameters
        ----------
        model
            A layer of this system.
        chosen
            Parameters that the model doesn't say, by name; the usual ones where not given.

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
    """Add the golden side of a number system; the same one may be added again.

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
    """Refuse a number system that doesn't go with those that there are.

    Raises
    ------
    TypeError
        If its name or its kind is taken, another design runs LSTMs of its class, or one of its
        options is a word where another system's of that name is a number.
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
    """The number system of a quantised layer; the first one registered for its class.

    Raises
    ------
    ValueError
        If the layer is real.
    """
    for system in SYSTEMS.values():
        if type(model) is system.lstm:
            return system
    if not model.is_quantised:
        raise ValueError("The model is a real one; quantise it first with 'fewbit quantize'.")
    raise ValueError(f"No number system is registered for {type(model).__name__}; register one.")


@dataclass(frozen=True)
class ModelLayer:
    """A layer, and what makes it run a model.

    Parameters
    ----------
    design
        Name of the layer's design.
    contract
        The layer.
    constants
        What the layer packs into its image.
    """

    design: str
    contract: LayerContract[Any]
    constants: Any

    @property
    def image(self) -> bytes:
        """The image."""
        return self.contract.pack(self.constants)


def layer_of(model: Lstm, **chosen: Any) -> ModelLayer:
    """The layer that runs a model.

    Parameters
    ----------
    model
        A quantised LSTM.
    chosen
        Parameters that the model doesn't say, by name, such as ``lanes``; None counts as not given.

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
    """Options of all quantisers by name, each by the names of the systems that have it."""
    found: dict[str, dict[str, Option]] = {}
    for system in SYSTEMS.values():
        for option in system.options:
            found.setdefault(option.name, {})[system.name] = option
    return found


def listed(names: list[str]) -> str:
    """Names as a sentence has them."""
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
        "of a row: any, or powers of two, for no multipliers",
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
            Option("rounding", "of a requantisation", "double", choices=get_args(Rounding)),
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
