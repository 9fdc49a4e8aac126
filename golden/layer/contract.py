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
    """What a layer keeps of the steps before, beside its state."""

    @abstractmethod
    def restart(self) -> None:
        """The next step is the first of a sequence."""

    @abstractmethod
    def ask(self, request: bytes) -> bytes:
        """The answer that follows the state, for the packet that asks for it."""

    @abstractmethod
    def step(self, x: Raws, hidden: Raws, cell: Raws) -> tuple[Raws, Raws]:
        """New hidden raws and cell raws for input raws (inputs,)."""


class LayerContract(Contract, Generic[Constants]):
    """A layer with its parameters and its state, which takes packets and answers them in order.

    The type parameter is what an image stands for in the number system.

    A subclass is a frozen dataclass. Its fields are its parameters, each made by
    :func:`fewbit.golden.parameter.parameter`, and ``image``, the image that the layer was
    generated with, None where packets bring it.
    """

    image: bytes | None
    chosen: ClassVar[tuple[str, ...]] = ("lanes", "neurons")
    """Parameters that a model doesn't say, and its user may."""

    @classmethod
    @abstractmethod
    def of(
        cls, model: Any, lanes: int | None = None, neurons: int | None = None, **chosen: Any
    ) -> Self:
        """The layer that runs a model.

        Parameters
        ----------
        model
            An LSTM of the number system.
        lanes, neurons, chosen
            Those of `chosen`; where one is not given, what suits the model, or the field's default.

        Raises
        ------
        ValueError
            If no layer of these parameters runs it.
        """

    @staticmethod
    def _given(**chosen: Any) -> dict[str, Any]:
        """Those that are not None: the others have the defaults of the fields."""
        return {name: value for name, value in chosen.items() if value is not None}

    @staticmethod
    @abstractmethod
    def constants_of(model: Any) -> Any:
        """What the layer packs into its image, of a model."""

    @property
    def raws_are_signed(self) -> bool:
        """Whether the bytes of vectors and cells are two's complement, or codes of floats."""
        return True

    @property
    def activation_width(self) -> int:
        """Bits of an input or a hidden value; of those of its bytes others don't count."""
        return 8

    @property
    def value_bytes(self) -> int:
        """Bytes of an input or a hidden value in a packet."""
        return packets.value_bytes(self.activation_width)

    @property
    def settings(self) -> Mapping[str, Value]:
        """The parameters by name, without the image."""
        return {name: getattr(self, field) for name, field in field_names(type(self)).items()}

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """What the layer does in a time step."""

    @cached_property
    def plan(self) -> Plan:
        """What the image holds, and where."""
        return self.make_plan()

    @abstractmethod
    def make_plan(self) -> Plan:
        """What `plan` is; made once a contract."""

    @abstractmethod
    def check_fit(self, constants: Constants) -> None:
        """Refuse constants of another layer.

        Raises
        ------
        ValueError
            With what doesn't fit.
        """

    def arrays_of(self, constants: Constants) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the plan's fields and texts, by name."""
        names = (*self.plan.fields, *self.plan.texts)
        return {name: np.asarray(getattr(constants, name)) for name in names}

    @abstractmethod
    def made_of(self, arrays: ImageArrays) -> Constants:
        """The constants of the arrays of the plan's fields, in int64.

        Raises
        ------
        ValueError
            If a number is out of its range.
        """

    def unpack(self, image: bytes) -> Constants:
        """The constants of an image.

        The circuit checks size and checksum; what an image with both right may hold is up to its
        packer.

        Raises
        ------
        fewbit.golden.layer.image.ImageError
            If the image has a wrong size or checksum.
        ValueError
            If a constant is out of its range.
        """
        return self.made_of(unpack(self.plan, image))

    def pack(self, constants: Constants) -> bytes:
        """The image of constants.

        Raises
        ------
        ValueError
            If they are those of another layer.
        """
        self.check_fit(constants)
        return pack(self.plan, self.arrays_of(constants))

    def image_of(self, model: Lstm) -> bytes:
        """The image of a model.

        Raises
        ------
        ValueError
            If the model is that of another layer.
        """
        return self.pack(self.constants_of(model))

    @abstractmethod
    def reset_state(self, constants: Constants) -> tuple[Raws, Raws]:
        """Hidden raws (outputs,) and cell raws (hidden,) at reset."""

    @abstractmethod
    def next_state(
        self, constants: Constants, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        """New hidden raws (outputs,) and cell raws (hidden,) for input raws (inputs,)."""

    def history(self, constants: Constants) -> History | None:
        """What the layer keeps beside its state, and takes its steps by; None if nothing."""
        return None

    @property
    def passes_size(self) -> int:
        """Bytes of the packet that follows a state asked for; 0 for none."""
        return 0

    @abstractmethod
    def random_image(self, rng: np.random.Generator) -> bytes:
        """The image of random constants that take most gates to a lively range."""

    @property
    def state_size(self) -> int:
        """Bytes of a state packet."""
        return self.output_size + CELL_BYTES * self.schedule.hidden

    @property
    def input_size(self) -> int:
        """Bytes of an input vector."""
        return self.value_bytes * self.schedule.inputs

    @property
    def output_size(self) -> int:
        """Bytes of a hidden vector."""
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
        """Answers of a stream of packets, the layer being reset before the first."""
        return packets.results(self.answers(packets.packets_in(arrays)))

    def answers(self, taken: Iterable[Packet]) -> Iterator[Packet]:
        """Packets that the layer gives for those that it takes, reset before the first."""
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
        """Inputs or hidden values of their bytes."""
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
        """The answer that holds byte ``index``, and where in it."""
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
        """Packets whose answers hold ``count`` bytes.

        Images of random constants, sequences of random vectors, states saved and loaded, and
        every kind of broken packet.
        """
        inputs, outputs, size = self.input_size, self.output_size, self.plan.size
        image = self.random_image(rng)
        # A cut image first: whatever was loaded before is gone. The answers up to and with the
        # whole image are a byte each.
        sent = [
            Packet(Kind.IMAGE, image[: int(rng.integers(1, 5))]),
            Packet(Kind.INPUT, _bytes(rng, inputs)),
        ]
        # Broken images, where they are not most of what is sent.
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
        # What doesn't count may be anything: the kind after the first byte, the start before the
        # last one and on other packets.
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
    """A state as its packet holds it: hidden raws (outputs,), cell raws (hidden,)."""
    return as_bytes(hidden, value_bytes).tobytes() + as_bytes(cell, CELL_BYTES).tobytes()


def _status(status: Status) -> Packet:
    return Packet(Reply.STATUS, bytes([status]))


def _bytes(rng: np.random.Generator, length: int) -> bytes:
    """Random bytes; a packet in four has extremes only."""
    if rng.integers(0, 4) == 0:
        return rng.choice(np.array([0, 127, 128, 255], np.uint8), length).tobytes()
    return rng.bytes(length)


def _other_length(rng: np.random.Generator, length: int) -> int:
    """A length near the right one."""
    near = [other for other in (length - 1, length + 1, 1, 2 * length) if other not in {0, length}]
    return int(rng.choice(near))
