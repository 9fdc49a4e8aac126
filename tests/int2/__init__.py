"""A number system of 2-bit weights, as a package of a user's own adds it.

Nothing of the project knows of it: `register` is all that joins them. The manual's page "Adding a
number system" walks through these modules.
"""

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.systems import NumberSystem, Option
from fewbit.hdl.systems import register as register_with_design

from .circuit import DESIGN
from .layer import Int2LstmLayerContract
from .lstm import Int2Lstm
from .quantize import quantize_network

__all__ = ["SYSTEM", "register"]

SYSTEM = NumberSystem(
    name="int2",
    lstm=Int2Lstm,
    quantize=quantize_network,
    options=(
        Option(
            "activation",
            "approximation of sigmoid and tanh",
            default="table",
            choices=ActivationKind.__args__,
        ),
    ),
    layer=Int2LstmLayerContract,
    design=DESIGN.name,
)


def register() -> None:
    """Make the number system known: to `fewbit`, to model files and to the layers' tests."""
    register_with_design(SYSTEM, DESIGN)
