"""RTL generator and verification flow for LSTM arithmetic at few bits.

What the ``fewbit`` command does can be done from Python by the functions here; the page "Python" of
the manual shows them in use. Importing this package is cheap: each function imports what it needs.
"""

from typing import TYPE_CHECKING

from fewbit.errors import UsageError
from fewbit.interface.designs import (
    designs,
    find,
    generate,
    prove,
    regress,
    synthesize,
    vectors,
)
from fewbit.interface.models import evaluate, load, quantize, run, save

if TYPE_CHECKING:
    from fewbit.golden.parameter import ParameterError

    __version__: str

__all__ = [
    "ParameterError",
    "UsageError",
    "__version__",
    "designs",
    "evaluate",
    "find",
    "generate",
    "load",
    "prove",
    "quantize",
    "regress",
    "run",
    "save",
    "synthesize",
    "vectors",
]


def __getattr__(name: str) -> object:
    """Import and return a name whose module is heavy, when it is first asked for."""
    if name == "ParameterError":
        from fewbit.golden.parameter import ParameterError

        return ParameterError
    if name == "__version__":
        from fewbit.sim.verilog import generator_version

        return generator_version().removeprefix("fewbit ")
    raise AttributeError(f"module 'fewbit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all names of the package, those included that are not imported yet."""
    return sorted({*globals(), *__all__})
