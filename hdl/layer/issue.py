"""The component that issues the beats of a time step: a walk through the rows of a schedule."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.schedule import Row, Schedule
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.selection import bits_of, case, is_one_of

__all__ = ["Issue", "bounds", "issue_layout"]


def bounds(counts: Iterable[int]) -> tuple[list[int], list[int]]:
    """Return where runs of these lengths begin and end, if they follow one after the other."""
    ends = [end - 1 for end in accumulate(counts)]
    return [0, *(end + 1 for end in ends[:-1])], ends


def issue_layout(schedule: Schedule, segments: Sequence[str]) -> StructLayout:
    """Return the layout of what `Issue` says about a beat, a cycle before its words are read.

    ======================  ========================================================================
    field                   meaning
    ======================  ========================================================================
    ``weight``, ``start``   the words of the memories of weights and of start values
    ``word``                the word of the activations' vector
    ``reads_word``          the word is another than that of the beat before
    ``first_word``          the word is the first of its row
    ``last_word``           the word is the last of its row
    ``input``               the activations are those of the input vector
    ``recurrent``           the activations are old hidden values
    ``inner``               the activations are hidden values before the projection
    ``products``            the beat has weights: any of the three
    ``starts``              the row starts from the image's next start value
    ``starts_from_gate``    the row starts from the stored value of gate ``gate``
    ``new_cell``            the row takes a cell that this time step has written
    ``needs_cell``          the row needs the unit's cell
    ``first``, ``last``     the beat is the first, or the last, of its sum
    ``segment``             the number of the segment of the neuron's program
    ``group``               the number of the units that the neurons take now
    ``ends_group``          the beat is the group's last one in this time step
    ======================  ========================================================================

    Where rows can be taken by halves, two words in a beat, there are also ``odd``, the lowest bit
    of ``weight``; ``second_word``, the word of activations for the second half of the lanes; and
    ``lacks``, a bit for each half of the lanes, which is 1 if that half has no word in this beat.
    """
    rows = schedule.rows
    most_beats = max(2, *(schedule.beats(row) for row in rows))
    fields: dict[str, ShapeLike] = {
        "weight": range(max(2, schedule.weight_words)),
        "start": range(max(2, schedule.start_words)),
        "word": range(most_beats),
        "gate": range(max(2, 1 + max(task.gate for task in schedule.tasks))),
        "segment": range(max(2, len(segments))),
        "group": range(max(2, *map(schedule.groups, schedule.phases))),
    }
    flags = (
        *("reads_word", "first_word", "last_word", "input", "recurrent", "inner", "products"),
        *("starts", "starts_from_gate", "new_cell", "needs_cell", "first", "last", "ends_group"),
    )
    fields |= dict.fromkeys(flags, 1)
    if schedule.halves:
        fields |= {"odd": 1, "second_word": range(most_beats), "lacks": 2}
    return StructLayout(fields)


class Issue(wiring.Component):
    """Walks through the rows of a time step, beat by beat, and says what each beat needs.

    A beat is offered every cycle from ``begins`` to the end of the phase, and again from
    ``next_phase``.

    Parameters
    ----------
    schedule
        The rows, in order.
    segments
        Names of the segments of the neuron's program, in the order of their numbers.

    Ports
    -----
    begins, next_phase
        Whether a time step begins with the next cycle; and whether the next phase of the one in
        progress does.
    phase
        The number of the phase in progress.
    low
        Whether the group is in mode LOW: its rows are taken with the high halves of weights alone,
        two words in a beat. It holds still in a group.
    o
        Beats, see `issue_layout`.
    """

    def __init__(self, schedule: Schedule, segments: Sequence[str] = ("",)) -> None:
        self.schedule = schedule
        self.segments = tuple(segments)
        super().__init__(
            {
                "begins": In(1),
                "next_phase": In(1),
                "phase": In(range(max(2, len(schedule.phases)))),
                "low": In(1),
                "o": Out(stream.Signature(issue_layout(schedule, self.segments))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        schedule, o, rows = self.schedule, self.o.payload, self.schedule.rows
        issuing = Signal()
        row = Signal(range(max(2, len(rows))), reset_less=True)
        beat, group, weight, start = (
            Signal.like(o[field], name=name, init=0, reset_less=True)
            for name, field in (
                ("beat", "word"),
                ("group", "group"),
                ("weight", "weight"),
                ("start", "start"),
            )
        )
        issues = wire(m, issuing & self.o.ready, "issues")

        def row_is(condition: Callable[[Row], bool], name: str) -> Signal:
            return wire(m, is_one_of(row, rows, condition), name)

        is_last_beat = self._is_last(m, row, lambda length: self._ends_row(beat, length))
        # The first row of each phase, and the last.
        firsts, ends = bounds(
            sum(len(task.rows) for task in phase.tasks) for phase in schedule.phases
        )
        is_last_row = wire(m, row.matches(*ends), "is_last_row")
        is_last_group = Signal()
        first_row = Signal.like(row)
        groups = [schedule.groups(phase) for phase in schedule.phases]
        with m.Switch(self.phase):
            for index, (count, first) in enumerate(zip(groups, firsts, strict=True)):
                with case(m, index, groups):
                    m.d.comb += [is_last_group.eq(group == count - 1), first_row.eq(first)]
        parts = {
            part: row_is(lambda each, p=part: each.part == p, f"is_row_of_{part}")
            for part in ("input", "recurrent", "inner", "none")
        }
        has_start = row_is(lambda each: each.start == "image", "has_start")
        # Where several sums are interleaved, all of them in turn use each word of the vector.
        turn_bits = bits_of(schedule.sums) if schedule.sums > 1 else 0
        is_first_word: Value = beat == 0
        is_last_word: Value = is_last_beat
        word: Value = beat
        stride: Value | int = 1
        if turn_bits:
            word = beat[turn_bits:]
            is_first_word = wire(m, ~word.any(), "is_first_word")
            is_last_word = self._is_last(
                m, row, lambda length: word == (length >> turn_bits) - 1, "is_last_word"
            )
            m.d.comb += o.reads_word.eq(~beat[:turn_bits].any())
        else:
            m.d.comb += o.reads_word.eq(1)
        if schedule.halves:
            word, stride = self._halves(m, row, beat, weight, is_last_beat)

        with m.If(issues):
            m.d.sync += beat.eq(beat + stride)
            with m.If(~parts["none"]):
                m.d.sync += weight.eq(weight + stride)
            if turn_bits:
                with m.If(has_start & is_first_word):
                    m.d.sync += start.eq(start + 1)
            with m.If(is_last_beat):
                m.d.sync += [beat.eq(0), row.eq(row + 1)]
                if not turn_bits:
                    with m.If(has_start):
                        m.d.sync += start.eq(start + 1)
                with m.If(is_last_row):
                    m.d.sync += group.eq(group + 1)
                    with m.If(is_last_group):
                        m.d.sync += [issuing.eq(0), group.eq(0)]
                    with m.Else():
                        m.d.sync += row.eq(first_row)
        with m.If(self.next_phase):
            m.d.sync += issuing.eq(1)
        with m.If(self.begins):
            m.d.sync += [issuing.eq(1), *(each.eq(0) for each in (row, beat, group, weight, start))]

        goes_on = is_one_of(row, rows, lambda each: each.start == "none")
        m.d.comb += [
            self.o.valid.eq(issuing),
            o.weight.eq(weight),
            o.start.eq(start),
            o.word.eq(word),
            o.first_word.eq(is_first_word),
            o.last_word.eq(is_last_word),
            o.input.eq(parts["input"]),
            o.recurrent.eq(parts["recurrent"]),
            o.inner.eq(parts["inner"]),
            o.products.eq(~parts["none"]),
            o.starts.eq(has_start),
            o.starts_from_gate.eq(is_one_of(row, rows, lambda each: each.start == "gate")),
            o.new_cell.eq(is_one_of(row, rows, self._reads_new_cell)),
            o.needs_cell.eq(is_one_of(row, rows, lambda each: each.needs_cell)),
            o.first.eq(is_first_word & ~goes_on),
            o.last.eq(is_last_word & is_one_of(row, rows, schedule.ends_sums)),
            o.group.eq(group),
            o.ends_group.eq(is_last_beat & (row == len(rows) - 1)),
        ]
        for number in range(1 + max(each.gate for each in rows)):
            with m.If(is_one_of(row, rows, lambda each, n=number: each.gate == n)):
                m.d.comb += o.gate.eq(number)
        codes = {
            each: self.segments.index(task.segment) if len(self.segments) > 1 else 0
            for task in schedule.tasks
            for each in task.rows
        }
        for code in set(codes.values()):
            with m.If(is_one_of(row, rows, lambda each, c=code: codes[each] == c)):
                m.d.comb += o.segment.eq(code)
        return m

    def _is_last(
        self, m: Module, row: Value, ends: Callable[[int], Value], name: str = "is_last_beat"
    ) -> Signal:
        """Return whether the row in progress ends.

        For each length of a row in beats, `ends` gives the condition under which such a row ends.
        """
        schedule, is_last = self.schedule, Signal(name=name)
        for length in {schedule.beats(each) for each in schedule.rows}:
            with m.If(
                is_one_of(row, schedule.rows, lambda each, n=length: schedule.beats(each) == n)
            ):
                m.d.comb += is_last.eq(ends(length))
        return is_last

    def _ends_row(self, beat: Value, length: int) -> Value:
        """Return whether a beat is the last of a row of `length` words."""
        if not self.schedule.halves:
            return beat == length - 1
        # With two words a beat, the last beat has only one if their number is odd.
        ends = self.low | (beat[0] == (length - 1) % 2)
        return ends if len(beat) == 1 else ends & (beat[1:] == (length - 1) // 2)

    def _halves(
        self, m: Module, row: Value, beat: Value, weight: Value, is_last_beat: Value
    ) -> tuple[Value, Value]:
        """Say which word of activations each half of the lanes reads.

        Returns
        -------
        The word of the first half, and the number of words from this beat to the next.
        """
        o, low = self.o.payload, self.low
        lengths = [self.schedule.beats(each) for each in self.schedule.rows]
        has_odd_length = row.matches(*(place for place, each in enumerate(lengths) if each % 2))
        is_odd = weight[0]
        lacks = wire(m, low & is_last_beat & has_odd_length, "lacks_a_word")
        m.d.comb += [
            o.odd.eq(is_odd),
            o.lacks.eq(Cat(lacks & is_odd, lacks & ~is_odd)),
            o.second_word.eq(_or_one(beat, low & ~is_odd)),
        ]
        return _or_one(beat, low & is_odd), wire(m, Mux(low & ~lacks, 2, 1), "stride")

    def _reads_new_cell(self, row: Row) -> bool:
        """Return whether a row takes a cell that an earlier phase of the time step has written."""
        written = False
        for phase in self.schedule.phases:
            if any(row in task.rows for task in phase.tasks):
                return written
            written = written or any(task.writes_cell for task in phase.tasks)
        raise ValueError(f"Row {row.name} is not in the schedule.")


def _or_one(word: Value, bit: Value) -> Value:
    """Return the word with its lowest bit set if `bit` is 1."""
    lowest = word[0] | bit
    return lowest if len(word) == 1 else Cat(lowest, word[1:])
