"""The contract of a layer in any number system: packets in, packets out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from fewbit.golden.arithmetic import wrap
from fewbit.golden.contract import Contract
from fewbit.golden.layer import packets
from fewbit.golden.layer.image import ImageError, as_bytes, integers, pack, unpack
from fewbit.golden.layer.packets import Kind, Packet, Reply, Status
from fewbit.golden.parameter import field_names

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays, Codes
    from fewbit.golden.layer.image import Arrays as ImageArrays
    from fewbit.golden.layer.image import Plan
    from fewbit.golden.layer.schedule import Schedule
    from fewbit.golden.lstm.contract import Lstm
    from fewbit.golden.operands import Operand
    from fewbit.golden.parameter import Value

    Raws = npt.NDArray[np.int64]

__all__ = ["CELL_BYTES", "History", "LayerContract", "state_bytes"]

CELL_BYTES = 2

Constants = TypeVar("Constants")


class History(ABC):
    """The record that a layer keeps of earlier time steps, beside its state."""

    @abstractmethod
    def restart(self) -> None:
        """Forget all earlier time steps: the next one is the first of a sequence."""

    @abstractmethod
    def ask(self, request: bytes) -> bytes:
        """Return the answer that follows a state, for the packet that asked for the state."""

    @abstractmethod
    def step(self, x: Raws, hidden: Raws, cell: Raws) -> tuple[Raws, Raws]:
        """Compute a time step: return new hidden raws and cell raws for input raws (inputs,)."""


class LayerContract(Contract, Generic[Constants]):
    """A layer with its constants and its state, which answers packets in their order.

    The type parameter is the type of the constants in the number system.

    A subclass is a frozen dataclass. Its fields are its parameters, each made by
    :func:`fewbit.golden.parameter.parameter`, and ``image``. That is the image that the layer was
    generated with, or None if the layer receives its image in a packet.
    """

    image: bytes | None
    chosen: ClassVar[tuple[str, ...]] = ("lanes", "neurons")
    """Parameters that a model leaves open and that its user may set."""

    @classmethod
    @abstractmethod
    def of(
        cls, model: Any, lanes: int | None = None, neurons: int | None = None, **chosen: Any
    ) -> Self:
        """Return the contract of the layer that runs a model.

        Parameters
        ----------
        model
            An LSTM of the number system.
        lanes, neurons, chosen
            The parameters in `chosen`. Each default suits the model, or is that of the field.

        Raises
        ------
        ValueError
            If a layer with these parameters cannot run the model.
        """

    @staticmethod
    def _given(**chosen: Any) -> dict[str, Any]:
        """Return the items that are not None: for the others the fields' defaults hold."""
        return {name: value for name, value in chosen.items() if value is not None}

    @staticmethod
    @abstractmethod
    def constants_of(model: Any) -> Any:
        """Return the constants that the layer packs into its image, taken from a model."""

    @property
    def raws_are_signed(self) -> bool:
        """Return whether bytes of vectors and cells are two's complement, not codes of floats."""
        return True

    @property
    def activation_width(self) -> int:
        """Return the bits of an input or a hidden value; other bits of its bytes are ignored."""
        return 8

    @property
    def value_bytes(self) -> int:
        """Return the number of bytes of an input or a hidden value in a packet."""
        return packets.value_bytes(self.activation_width)

    @property
    def settings(self) -> Mapping[str, Value]:
        """Return the parameters by name, without the image."""
        return {name: getattr(self, field) for name, field in field_names(type(self)).items()}

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """Return the schedule of a time step."""

    @cached_property
    def plan(self) -> Plan:
        """Return the plan of the image: its content and its layout."""
        return self.make_plan()

    @abstractmethod
    def make_plan(self) -> Plan:
        """Make the plan of the image; `plan` calls this once for each contract."""

    @abstractmethod
    def check_fit(self, constants: Constants) -> None:
        """Refuse constants that belong to another layer.

        Raises
        ------
        ValueError
            If anything does not fit; the sentence says what.
        """

    def arrays_of(self, constants: Constants) -> dict[str, npt.NDArray[Any]]:
        """Return the the arrays of the plan's fields and texts, by name."""
        names = (*self.plan.fields, *self.plan.texts)
        return {name: np.asarray(getattr(constants, name)) for name in names}

    @abstractmethod
    def made_of(self, arrays: ImageArrays) -> Constants:
        """Return the constants that the arrays of the plan's fields stand for, arrays being int64.

        Raises
        ------
        ValueError
            If a number is out of its range.
        """

    def unpack(self, image: bytes) -> Constants:
        """Return the constants that an image holds.

        The circuit checks only the size and the checksum of an image; its packer checks the rest.

        Raises
        ------
        fewbit.golden.layer.image.ImageError
            If the image has a wrong size or checksum.
        ValueError
            If a constant is out of its range.
        """
        return self.made_of(unpack(self.plan, image))

    def pack(self, constants: Constants) -> bytes:
        """Pack constants into the image of this layer.

        Raises
        ------
        ValueError
            If the constants belong to another layer.
        """
        self.check_fit(constants)
        return pack(self.plan, self.arrays_of(constants))

    def image_of(self, model: Lstm) -> bytes:
        """Return the image that holds a model's constants.

        Raises
        ------
        ValueError
            If the model belongs to another layer.
        """
        return self.pack(self.constants_of(model))

    @abstractmethod
    def reset_state(self, constants: Constants) -> tuple[Raws, Raws]:
        """Return the hidden raws (outputs,) and cell raws (hidden,) at reset."""

    @abstractmethod
    def next_state(
        self, constants: Constants, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        """Return the new hidden raws (outputs,) and cell raws (hidden,) for inputs (inputs,)."""

    def history(self, constants: Constants) -> History | None:
        """Return the layer's record of earlier time steps, or None if it needs none."""
        return None

    @property
    def passes_size(self) -> int:
        """Return the bytes of the packet that follows a requested state; 0 if there is none."""
        return 0

    @abstractmethod
    def random_image(self, rng: np.random.Generator) -> bytes:
        """Return an image of random constants that keep most gates away from saturation."""

    @property
    def state_size(self) -> int:
        """Return the number of bytes of a state packet."""
        return self.output_size + CELL_BYTES * self.schedule.hidden

    @property
    def input_size(self) -> int:
        """Return the number of bytes of an input vector."""
        return self.value_bytes * self.schedule.inputs

    @property
    def output_size(self) -> int:
        """Return the number of bytes of a hidden vector."""
        return self.value_bytes * self.schedule.outputs

    @property
    def operands(self) -> tuple[Operand, ...]:
        return packets.OPERANDS

    @property
    def results(self) -> tuple[Operand, ...]:
        return packets.RESULTS

    @property
    def handshakes(self) -> dict[str, tuple[str, str]]:
        return packets.HANDSHAKES

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return the answers to a stream of packets that begins at reset."""
        return packets.results(self.answers(packets.packets_in(arrays)))

    def answers(self, taken: Iterable[Packet]) -> Iterator[Packet]:
        """Return the packets that the layer sends in answer to others, starting from reset."""
        constants = None if self.image is None else self.unpack(self.image)
        hidden, cell = (
            np.zeros((2, 0), np.int64) if constants is None else self.reset_state(constants)
        )
        history = None if constants is None else self.history(constants)
        width = self.value_bytes
        for packet in taken:
            if packet.kind == Kind.IMAGE and self.image is not None:
                yield _status(Status.IMAGE_INSIDE)
            elif packet.kind == Kind.IMAGE:
                constants, status = self._constants_of(packet.data)
                if constants is not None:
                    hidden, cell = self.reset_state(constants)
                    history = self.history(constants)
                yield _status(status)
            elif constants is None:
                yield _status(Status.NO_IMAGE)
            elif packet.kind == Kind.SAVE_STATE:
                yield Packet(Reply.STATE, state_bytes(hidden, cell, width))
                if history is not None:
                    yield Packet(Reply.PASSES, history.ask(packet.data))
            elif packet.kind == Kind.LOAD_STATE:
                if history is not None:
                    history.restart()
                if len(packet.data) == self.state_size:
                    raws = np.frombuffer(packet.data, np.uint8)
                    hidden = self._values(raws[: self.output_size])
                    cell = self._raws(raws[self.output_size :].reshape(-1, CELL_BYTES))
                else:
                    hidden, cell = self.reset_state(constants)
                    yield _status(Status.WRONG_LENGTH)
            elif len(packet.data) != self.input_size:
                yield _status(Status.WRONG_LENGTH)
            else:
                if packet.starts:
                    hidden, cell = self.reset_state(constants)
                    if history is not None:
                        history.restart()
                x = self._values(np.frombuffer(packet.data, np.uint8))
                if history is None:
                    hidden, cell = self.next_state(constants, x, hidden, cell)
                else:
                    hidden, cell = history.step(x, hidden, cell)
                yield Packet(Reply.HIDDEN, as_bytes(hidden, width).tobytes())

    def _values(self, content: npt.NDArray[np.uint8]) -> Raws:
        """Return the inputs or hidden values that bytes hold."""
        raws = self._raws(content.reshape(-1, self.value_bytes))
        return wrap(raws, self.activation_width) if self.raws_are_signed else raws

    def _raws(self, content: npt.NDArray[np.uint8]) -> Raws:
        return integers(content, signed=self.raws_are_signed)

    def _constants_of(self, image: bytes) -> tuple[Constants | None, Status]:
        if len(image) != self.plan.size:
            return None, Status.WRONG_LENGTH
        try:
            return self.unpack(image), Status.LOADED
        except ImageError:
            return None, Status.BROKEN_IMAGE

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        """Return a line that names the answer with byte ``index``, and the byte's place in it."""
        before = 0
        for number, answer in enumerate(self.answers(packets.packets_in(arrays))):
            if index < before + len(answer.data):
                raws = np.frombuffer(answer.data, np.int8)
                name = Reply(answer.kind).name.lower()
                return [
                    f"byte {index - before} of answer {number}, {len(answer.data)} bytes of {name}",
                    f"expected packet = {answer.data.hex(' ')} ({' '.join(map(str, raws))})",
                ]
            before += len(answer.data)
        return [f"byte {index}, after the last answer"]

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return packets whose answers hold ``count`` bytes.

        They are images of random constants, sequences of random vectors, states that are saved and
        loaded, and every kind of broken packet.
        """
        inputs, outputs, size = self.input_size, self.output_size, self.plan.size
        image = self.random_image(rng)
        # A truncated image comes first and unloads any image before it. Each answer up to that of
        # the whole image is one byte.
        sent = [
            Packet(Kind.IMAGE, image[: int(rng.integers(1, 5))]),
            Packet(Kind.INPUT, _bytes(rng, inputs)),
        ]
        # Broken images follow, unless they would be most of the bytes.
        if size < 8 * count:
            sent += self._broken_images(rng, image)
        sent = [*sent, Packet(Kind.IMAGE, image)][:count]
        expected = len(sent)
        since_image = 0
        while expected < count:
            choice = rng.integers(0, 40)
            left = count - expected
            if choice < 34 and left >= outputs:
                sent.append(
                    Packet(Kind.INPUT, _bytes(rng, inputs), starts=bool(rng.integers(0, 6) == 0))
                )
                expected += outputs
                since_image += outputs
            elif choice == 34 and left >= self.state_size + self.passes_size:
                longest = 6 if self.passes_size else 2
                request = _bytes(rng, int(rng.integers(1, longest + 1)))
                sent.append(Packet(Kind.SAVE_STATE, request))
                expected += self.state_size + self.passes_size
            elif choice in {35, 36}:
                sent.append(Packet(Kind.LOAD_STATE, _bytes(rng, self.state_size)))
            elif choice == 37 or left < outputs:
                wrong = _bytes(rng, _other_length(rng, inputs))
                sent.append(Packet(Kind.INPUT, wrong, starts=bool(rng.integers(0, 2))))
                expected += 1
            elif choice == 38:
                sent.append(
                    Packet(Kind.LOAD_STATE, _bytes(rng, _other_length(rng, self.state_size)))
                )
                expected += 1
            elif 4 * since_image > size:
                sent.append(Packet(Kind.IMAGE, self.random_image(rng)))
                expected += 1
                since_image = 0
        arrays = packets.beats(sent)
        # Fields that the layer ignores are random: the kind after the first byte, and the start of
        # a sequence before the last byte and in other packets.
        last = arrays["s_axis_tlast"] == 1
        first = np.concatenate(([True], last[:-1]))
        any_kind, any_start = rng.integers(0, 4, len(last)), rng.integers(0, 2, len(last))
        is_input = np.repeat(
            [packet.kind == Kind.INPUT for packet in sent], [len(packet.data) for packet in sent]
        )
        arrays["s_axis_tdest"] = np.where(first, arrays["s_axis_tdest"], any_kind)
        arrays["s_axis_tuser"] = np.where(last & is_input, arrays["s_axis_tuser"], any_start)
        return arrays

    @staticmethod
    def _broken_images(rng: np.random.Generator, image: bytes) -> list[Packet]:
        flipped = bytearray(image)
        flipped[int(rng.integers(len(image)))] ^= 1 << int(rng.integers(8))
        return [
            Packet(Kind.IMAGE, bytes(flipped)),
            Packet(Kind.SAVE_STATE, b"\0"),
            Packet(Kind.IMAGE, image[: int(rng.integers(1, len(image)))]),
            Packet(Kind.LOAD_STATE, _bytes(rng, 5)),
            Packet(Kind.IMAGE, image + bytes(int(rng.integers(1, 4)))),
        ]


def state_bytes(hidden: Raws, cell: Raws, value_bytes: int = 1) -> bytes:
    """Return the bytes of a state packet: hidden raws (outputs,), then cell raws (hidden,)."""
    return as_bytes(hidden, value_bytes).tobytes() + as_bytes(cell, CELL_BYTES).tobytes()


def _status(status: Status) -> Packet:
    return Packet(Reply.STATUS, bytes([status]))


def _bytes(rng: np.random.Generator, length: int) -> bytes:
    """Return random bytes; a packet in four has extremes only."""
    if rng.integers(0, 4) == 0:
        return rng.choice(np.array([0, 127, 128, 255], np.uint8), length).tobytes()
    return rng.bytes(length)


def _other_length(rng: np.random.Generator, length: int) -> int:
    """Return a wrong length that is near the right one."""
    near = [other for other in (length - 1, length + 1, 1, 2 * length) if other not in {0, length}]
    return int(rng.choice(near))
