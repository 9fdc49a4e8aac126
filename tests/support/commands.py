"""The ``fewbit`` command, as a test calls it."""

from fewbit.commands.cli import main


def run(capsys, *words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:
        status = int(stop.code or 0)
    streams = capsys.readouterr()
    return status, streams.out, streams.err
