"""The FloatSD8 training step once more, one number at a time, in Fractions. Not collected.

It shares with golden the forward pass, which has tests of its own, and nothing of the backward one.
"""

from bisect import bisect_left, bisect_right
from fractions import Fraction
from functools import cache

import mpmath

from fewbit.golden.activation.floatsd8 import sigmoid_floatsd8, tanh_e5m2
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm, pre_activations, update_unit
from tests.support import exact

HALF = Fraction(1, 2)


@cache
def floatsd8_grid(bias: int) -> tuple[list[Fraction], list[int]]:
    """All values in their order, and the canonical code of each."""
    smallest: dict[Fraction, int] = {}
    for code in range(256):
        smallest.setdefault(exact.floatsd8(code, bias), code)
    kept = sorted(smallest)
    return kept, [smallest[value] for value in kept]


def nearest_floatsd8(value: Fraction, bias: int) -> int:
    """Nearest code, ties to the even index from zero, saturated."""
    table, codes = floatsd8_grid(bias)
    place = bisect_left(table, value)
    if place == len(table):
        return codes[-1]
    if place == 0:
        return codes[0]
    below, above = value - table[place - 1], table[place] - value
    is_even = (place - 1 - table.index(0)) % 2 == 0
    return codes[place - 1 if below < above or (below == above and is_even) else place]


@cache
def gradient_grid(bias: int) -> list[Fraction]:
    return [exact.e5m2(code, bias) for code in range(128)]


def nearest_gradient(code: int, bias: int) -> int:
    """Nearest e5m2 code of a binary16 code, ties to even, saturated at the last code."""
    value, table = abs(exact.binary16(code)), gradient_grid(bias)
    place = bisect_left(table, value)
    if place == len(table):
        found = 127
    else:
        below = place - 1
        closer = place and value - table[below] < table[place] - value
        tie = place and value - table[below] == table[place] - value
        found = below if closer or (tie and below % 2 == 0) else place
    return found | code >> 15 << 7


def pieces(code: int, bias: int) -> list[int]:
    """Four truncations of what is left."""
    left, found = abs(exact.binary16(code)), []
    for _ in range(4):
        piece = bisect_right(gradient_grid(bias), left) - 1
        left -= gradient_grid(bias)[piece]
        found.append(piece and piece | code >> 15 << 7)
    return found


def by_mpmath(function, bias: int, magnitude: int) -> int:
    """FloatSD8 code nearest to a function of a binary16 magnitude, at 40 digits."""
    x = exact.binary16(magnitude)
    with mpmath.workdps(40):
        _, mantissa, exponent, _ = function(mpmath.mpf(x.numerator) / x.denominator)._mpf_
    return nearest_floatsd8(Fraction(int(mantissa)) * Fraction(2) ** max(int(exponent), -400), bias)


@cache
def sigmoid_slope(magnitude: int) -> int:
    return by_mpmath(lambda x: 1 / (2 + 2 * mpmath.cosh(x)), 12, magnitude)


@cache
def tanh_slope(magnitude: int) -> int:
    return by_mpmath(lambda x: mpmath.sech(x) ** 2, 10, magnitude)


class ScalarStep:
    """A backward pass of one batch of sequences by loops."""

    def __init__(
        self,
        layer: FloatSD8Lstm,
        x,
        gradient_of_hidden,
        *,
        bias: int = 24,
        cell_bias: int = 7,
        input_bias: int = 8,
        chained: bool = False,
    ) -> None:
        self.layer, self.bias = layer, bias
        self.cell_bias, self.chained = cell_bias, chained
        self.input_bias = input_bias
        self.batch, self.time = len(x), len(x[0])
        self.overflow = False
        self.hidden_bias = 10
        self.rows = {
            "input": [[[0] * layer.inputs for _ in range(layer.hidden)] for _ in range(4)],
            "recurrent": [[[0] * layer.hidden for _ in range(layer.hidden)] for _ in range(4)],
            "bias": [[[0] for _ in range(layer.hidden)] for _ in range(4)],
        }
        self.d = [[None] * self.time for _ in range(self.batch)]
        self.of_input = [[None] * self.time for _ in range(self.batch)]
        self.run(x, gradient_of_hidden)

    def sum(self, start: int, factors: list[int], gradients: list[int], bias: int) -> int:
        pairs = list(zip(factors, gradients, strict=True))
        while pairs:
            group, pairs = pairs[: self.layer.products], pairs[self.layer.products :]
            group += [(0, 0)] * (self.layer.products - len(group))
            start = exact.floatsd8_mac(
                [factor for factor, _ in group],
                [gradient for _, gradient in group],
                start,
                self.layer.window,
                bias,
                self.bias,
            )
            self.overflow |= start & 0x7FFF == 0x7BFF
        return start

    def gradient(self, code: int) -> int:
        found = nearest_gradient(code, self.bias)
        self.overflow |= found & 0x7F >= 31 << 2
        return found

    def split(self, code: int) -> list[int]:
        self.overflow |= abs(exact.binary16(code)) >= Fraction(2) ** (32 - self.bias)
        return pieces(code, self.bias)

    def times(self, factor: int, bias: int, code: int) -> int:
        return self.sum(0, [factor] * 4, self.split(code), bias)

    def gated(self, pre: int, code: int) -> int:
        q, p = (int(number) for number in sigmoid_floatsd8(pre))
        signed = [piece and piece ^ p << 7 for piece in self.split(code)]
        return self.sum(code if p else 0, [q] * 4, signed, 11)

    def hidden_factor(self, code: int) -> int:
        return nearest_floatsd8(exact.e5m2(code), self.hidden_bias)

    def run(self, x, above) -> None:
        layer = self.layer
        units = range(layer.hidden)
        hiddens, cells, pres = (
            [layer.reset_state(self.batch)[0]],
            [layer.reset_state(self.batch)[1]],
            [],
        )
        for t in range(self.time):
            pres.append(pre_activations(layer, x[:, t], hiddens[-1]))
            hidden, cell = update_unit(pres[-1], cells[-1], layer.window)
            hiddens.append(hidden)
            cells.append(cell)
        carry = [[0] * layer.hidden for _ in range(self.batch)]
        of_hidden = [[int(above[b, -1, u]) for u in units] for b in range(self.batch)]
        for t in reversed(range(self.time)):
            for b in range(self.batch):
                found = [
                    self.unit(
                        pres[t][b, u].tolist(),
                        int(cells[t][b, u]),
                        int(cells[t + 1][b, u]),
                        of_hidden[b][u],
                        carry[b][u],
                    )
                    for u in units
                ]
                d = [[found[u][0][gate] for u in units] for gate in range(4)]
                self.d[b][t] = d
                carry[b] = [found[u][1] for u in units]
                flat = [d[gate][u] for gate in range(4) for u in units]
                weights = [layer.input_weights, layer.recurrent_weights]
                columns = [
                    [
                        [int(w[gate, u, k]) for gate in range(4) for u in units]
                        for k in range(w.shape[2])
                    ]
                    for w in weights
                ]
                self.of_input[b][t] = [
                    self.sum(0, column, flat, layer.input_weight_bias) for column in columns[0]
                ]
                of_hidden[b] = [
                    self.sum(
                        int(above[b, t - 1, u]) if t else 0,
                        columns[1][u],
                        flat,
                        layer.recurrent_weight_bias,
                    )
                    for u in units
                ]
            self.accumulate(t, x, hiddens[t])
        self.first_hidden, self.first_cell = of_hidden, carry

    def unit(self, pre: list[int], old: int, new: int, of_hidden: int, carry: int):
        """Gradients of a unit's four pre-activations, and the carry."""
        i, f, g, o = pre
        narrow = self.gradient(of_hidden)
        dh = exact.to_binary16(exact.e5m2(narrow, self.bias)) | narrow >> 7 << 15
        of_tanh = self.split(self.gated(o, dh))
        dc = self.sum(carry, [tanh_slope(new & 0x7FFF)] * 4, of_tanh, 10)
        tanh_g, tanh_c = int(tanh_e5m2(g)), int(tanh_e5m2(new))
        old_factor = nearest_floatsd8(exact.binary16(old), self.cell_bias)
        wide = [
            self.times(
                sigmoid_slope(i & 0x7FFF), 12, self.times(self.hidden_factor(tanh_g), 10, dc)
            ),
            self.times(sigmoid_slope(f & 0x7FFF), 12, self.times(old_factor, self.cell_bias, dc)),
            self.times(tanh_slope(g & 0x7FFF), 10, self.gated(i, dc)),
            self.times(
                sigmoid_slope(o & 0x7FFF), 12, self.times(self.hidden_factor(tanh_c), 10, dh)
            ),
        ]
        return [self.gradient(code) for code in wide], self.gated(f, dc)

    def accumulate(self, t: int, x, hidden) -> None:
        one = nearest_floatsd8(Fraction(1), 10)
        batch = range(self.batch)
        factors = {
            "input": [
                [
                    nearest_floatsd8(
                        exact.e5m2(int(x[b, t, k]), self.layer.input_bias), self.input_bias
                    )
                    for b in batch
                ]
                for k in range(self.layer.inputs)
            ],
            "recurrent": [
                [self.hidden_factor(int(hidden[b, k])) for b in batch]
                for k in range(self.layer.hidden)
            ],
            "bias": [[one] * self.batch],
        }
        for name, bias in (("input", self.input_bias), ("recurrent", 10), ("bias", 10)):
            for gate in range(4):
                for u in range(self.layer.hidden):
                    d = [self.d[b][t][gate][u] for b in batch]
                    row = self.rows[name][gate][u]
                    for k, factor in enumerate(factors[name]):
                        if self.chained:
                            row[k] = self.sum(row[k], factor, d, bias)
                        else:
                            part = self.split(self.sum(0, factor, d, bias))
                            row[k] = self.sum(row[k], [one] * 4, part, 10)
