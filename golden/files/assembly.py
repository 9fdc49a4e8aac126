"""Assembly: from the LSTMs of a foreign file to the network that is to be run.

A reader lists the LSTMs of a file in the order in which they run, each with its sources.
`assemble` makes a network of all of them, if they are connected, or of those that the user named.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.network import LONGEST_NAME, NETWORK_INPUT, Network, Node
from fewbit.golden.words import option_name

__all__ = ["LARGEST_FILE", "Found", "assemble", "read_file"]

LARGEST_FILE = 256 << 20
"""Largest number of bytes of a foreign model file."""

_MOST_LISTED = 8
_MOST_SHOWN = 60


@dataclass(frozen=True)
class Found:
    """One LSTM of a foreign file, running in one direction.

    Parameters
    ----------
    index
        Number by which the user may name the LSTM; both directions of one operator share it.
    name
        Name by which the user may name the LSTM instead.
    sources
        The LSTM's inputs side by side: places of earlier LSTMs in the list, or names of tensors
        that come from elsewhere.
    reverse
        Whether the LSTM runs from the last time step to the first.
    build
        A function that reads the weights; it is called only for LSTMs that are to be run.
    """

    index: int
    name: str
    sources: tuple[int | str, ...]
    reverse: bool
    build: Callable[[], Lstm]

    def __str__(self) -> str:
        """Return index and name, as messages show them."""
        name = self.name if len(self.name) <= _MOST_SHOWN else f"{self.name[:_MOST_SHOWN]}..."
        return f"{self.index} {name!r}"


def read_file(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """Return the content of a file from any source.

    Raises
    ------
    ValueError
        If it cannot be read, is no regular file, or has more than `largest` bytes.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: a model must be a file, not a folder or a device.")
        size = path.stat().st_size
        if size > largest:
            raise ValueError(f"{path}: a model file must hold at most {largest} bytes, not {size}.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file; give the path of a model.") from error
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror or error}); give the path of a model."
        ) from error


def assemble(
    found: Sequence[Found], joined: Sequence[tuple[int, ...]] = (), choice: str | None = None
) -> Network:
    """Return the network of the LSTMs that are to be run.

    Parameters
    ----------
    found
        All LSTMs of the file, at least one.
    joined
        Groups of places whose outputs the file puts side by side, in that order.
    choice
        Index or name of an LSTM, or several separated by commas. None stands for all, which must
        then be connected.

    Raises
    ------
    ValueError
        If the choice names no LSTM, or the chosen LSTMs do not form one network.
    """
    if choice is not None:
        places = _chosen(found, choice)
    else:
        groups = _groups(found, joined)
        if len(groups) > 1:
            raise ValueError(
                f"{len(groups)} LSTMs or groups of them are not connected: {_listed(found, groups)}"
                f"; choose with {option_name('lstm')} INDEX or {option_name('lstm')} INDEX,INDEX"
            )
        places = groups[0]
    return _network(found, joined, places)


def _listed(found: Sequence[Found], groups: Sequence[Sequence[int]]) -> str:
    shown = [" + ".join(str(found[place]) for place in group) for group in groups[:_MOST_LISTED]]
    return "; ".join(shown) + ("; ..." if len(groups) > _MOST_LISTED else "")


def _chosen(found: Sequence[Found], choice: str) -> list[int]:
    named = [place for place, one in enumerate(found) if one.name == choice]
    if named:
        return named
    places: set[int] = set()
    for word in (part.strip() for part in choice.split(",")):
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else None
        fitting = [place for place, one in enumerate(found) if word == one.name]
        fitting = fitting or [place for place, one in enumerate(found) if number == one.index]
        if not fitting:
            raise ValueError(
                f"no LSTM is called {word!r}; there are "
                f"{_listed(found, [[place] for place in range(len(found))])}"
            )
        places.update(fitting)
    return sorted(places)


def _groups(found: Sequence[Found], joined: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Return the places of LSTMs that are connected, group by group, in order."""
    leaders = list(range(len(found)))

    def leader(place: int) -> int:
        while leaders[place] != place:
            leaders[place] = leaders[leaders[place]]
            place = leaders[place]
        return place

    def unite(first: int, second: int) -> None:
        low, high = sorted((leader(first), leader(second)))
        leaders[high] = low

    forward: dict[tuple[tuple[int | str, ...], bool], int] = {}
    for place, one in enumerate(found):
        for source in one.sources:
            if isinstance(source, int):
                unite(source, place)
        # Both directions of a layer belong together, even if a file never joins their outputs.
        forward.setdefault((one.sources, one.reverse), place)
        other = forward.get((one.sources, not one.reverse))
        if other is not None:
            unite(other, place)
    for places in joined:
        for place in places:
            unite(places[0], place)
    groups: dict[int, list[int]] = {}
    for place in range(len(found)):
        groups.setdefault(leader(place), []).append(place)
    return list(groups.values())


def _network(
    found: Sequence[Found], joined: Sequence[tuple[int, ...]], places: Sequence[int]
) -> Network:
    position = {place: index for index, place in enumerate(places)}
    outside: dict[tuple[int | str, ...], int] = {}
    sources: list[tuple[int, ...]] = []
    for place in places:
        read = found[place].sources
        within = [isinstance(source, int) and source in position for source in read]
        if not any(within):
            outside.setdefault(read, place)
            sources.append((NETWORK_INPUT,))
            continue
        for source, inside in zip(read, within, strict=True):
            if not inside:
                outside.setdefault((source,), place)
        sources.append(
            tuple(
                position[source] if isinstance(source, int) and inside else NETWORK_INPUT
                for source, inside in zip(read, within, strict=True)
            )
        )
    if len(outside) > 1:
        first, second = list(outside.values())[:2]
        which = (
            f"LSTM {found[first]} reads two tensors"
            if first == second
            else f"LSTMs {found[first]} and {found[second]} read different tensors"
        )
        raise ValueError(
            f"{which} from outside; choose LSTMs with one input by {option_name('lstm')} INDEX"
        )
    outputs = _outputs(found, joined, places, {one for read in sources for one in read})
    nodes = [
        Node(found[place].build(), read, found[place].reverse, found[place].name[:LONGEST_NAME])
        for place, read in zip(places, sources, strict=True)
    ]
    return Network(tuple(nodes), tuple(position[place] for place in outputs))


def _outputs(
    found: Sequence[Found],
    joined: Sequence[tuple[int, ...]],
    places: Sequence[int],
    read: set[int],
) -> tuple[int, ...]:
    """Return the places whose outputs are the network's: those that no other LSTM reads."""
    ends = tuple(place for index, place in enumerate(places) if index not in read)
    if len(ends) == 1:
        return ends
    for together in joined:
        if len(together) == len(ends) and set(together) == set(ends):
            return together
    first, second = (found[place] for place in ends[:2])
    if len(ends) == 2 and first.sources == second.sources and first.reverse != second.reverse:
        return ends if second.reverse else ends[::-1]
    raise ValueError(
        f"the outputs of LSTMs {first} and {second} end side by side without being joined; choose "
        f"with {option_name('lstm')} INDEX"
    )
