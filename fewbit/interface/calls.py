"""The frame of all calls from Python, which loads plug-ins once and rewords errors for Python."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fewbit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_python", "load_plugins_once"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_python(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Wrap a function so that its errors name keywords instead of the command's options."""

    @functools.wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except UsageError as error:
            text = re.sub(r"'fewbit ([a-z]+)'", r"'fewbit.\1'", str(error))
            text = re.sub(
                r"--([a-z]+(?:-[a-z]+)*)", lambda flag: f"'{flag[1].replace('-', '_')}'", text
            )
            error.args = (text,)
            raise

    return wrapper


@functools.cache
def load_plugins_once() -> None:
    """Register the additions of installed packages, as the command does; later calls do nothing."""
    from fewbit.hdl.systems import load_plugins

    load_plugins()
