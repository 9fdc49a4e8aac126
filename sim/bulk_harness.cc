// Drives the streams of a CXXRTL design from arrays of packed 64-bit words.
//
// Python puts a few definitions before this text: DESIGN, the include of the design, and for each
// of CONFIGURATION, OPERANDS and RESULTS a list FIELD(port, lowest bit), besides *_WORDS, the
// 64-bit words of a row, and the handshakes' ports I_VALID, I_READY, O_VALID, O_READY.

#include <cstdint>
#include <cstring>

namespace {

template <size_t Bits>
cxxrtl::value<Bits> &value_of(cxxrtl::value<Bits> &port) { return port; }
template <size_t Bits>
cxxrtl::value<Bits> &value_of(cxxrtl::wire<Bits> &port) { return port.curr; }

template <size_t Lowest, size_t Bits>
inline void put(cxxrtl::value<Bits> &port, const uint64_t *words) {
    for (size_t chunk = 0; chunk < port.chunks; chunk++) {
        const size_t bit = Lowest + 32 * chunk;
        const size_t left = Bits - 32 * chunk;
        uint64_t bits = words[bit / 64] >> (bit % 64);
        if (bit % 64 > 32 && left > 64 - bit % 64) bits |= words[bit / 64 + 1] << (64 - bit % 64);
        port.data[chunk] = left >= 32 ? uint32_t(bits) : uint32_t(bits) & ((1u << left) - 1);
    }
}

template <size_t Lowest, size_t Bits>
inline void get(const cxxrtl::value<Bits> &port, uint64_t *words) {
    for (size_t chunk = 0; chunk < port.chunks; chunk++) {
        const size_t bit = Lowest + 32 * chunk;
        const size_t left = Bits - 32 * chunk;
        const uint64_t bits = port.data[chunk];
        words[bit / 64] |= bits << (bit % 64);
        if (bit % 64 > 32 && left > 64 - bit % 64) words[bit / 64 + 1] |= bits >> (64 - bit % 64);
    }
}

// Stalls at random, in stretches of differently harsh mixes.
struct Stalls {
    uint64_t state;
    uint32_t left = 0;
    uint32_t idle = 0;
    uint32_t blocked = 0;

    uint64_t random() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state * 0x2545f4914f6cdd1dull;
    }

    void next(bool &go, bool &ready) {
        static const uint32_t shares[8] = {0, 0, 16, 64, 128, 128, 192, 240};
        if (!left--) {
            const uint64_t drawn = random() >> 32;
            left = 16 + (drawn & 255);
            idle = shares[drawn >> 8 & 7];
            blocked = shares[drawn >> 11 & 7];
        }
        const uint64_t drawn = random() >> 32;
        go = (drawn & 255) >= idle;
        ready = (drawn >> 8 & 255) >= blocked;
    }
};

struct Circuit {
    DESIGN top;
    // Whether one evaluation gives every wire its value: no word of wires depends on itself.
    const bool settles = top.eval();

    // Outputs for the inputs of this cycle, as they are before its clock edge.
    void evaluate() {
        if (settles) {
            // The registers' next values are computed along, and wait for commit().
            top.p_clk.data[0] = 1;
            top.eval();
        } else {
            top.p_clk.data[0] = 0;
            top.step();
        }
    }
    // The clock edge.
    void finish() {
        if (settles) {
            top.commit();
            // The clock falls; nothing else has a new value.
            top.p_clk.data[0] = 0;
            top.commit();
        } else {
            top.p_clk.data[0] = 1;
            top.step();
        }
    }
    void load(const uint64_t *words) {
#define FIELD(port, lowest) put<lowest>(value_of(top.port), words);
        OPERANDS
#undef FIELD
    }
    void configure(const uint64_t *words) {
#define FIELD(port, lowest) put<lowest>(value_of(top.port), words);
        CONFIGURATION
#undef FIELD
        (void)words;
    }
    void store(uint64_t *words) {
        for (size_t word = 0; word < RESULT_WORDS; word++) words[word] = 0;
#define FIELD(port, lowest) get<lowest>(value_of(top.port), words);
        RESULTS
#undef FIELD
    }
};

enum Status : int64_t { DONE, HUNG, UNSTABLE, WITHDRAWN, LEFT_OVER };

}  // namespace

extern "C" {

void *fewbit_new() { return new Circuit(); }

void fewbit_delete(void *circuit) { delete static_cast<Circuit *>(circuit); }

// Reset for two cycles, and let the configuration in.
void fewbit_reset(void *handle) {
    Circuit &circuit = *static_cast<Circuit *>(handle);
    circuit.top.p_rst.data[0] = 1;
    value_of(circuit.top.I_VALID).data[0] = 0;
    value_of(circuit.top.O_READY).data[0] = 0;
    for (int cycle = 0; cycle < 2; cycle++) {
        circuit.evaluate();
        circuit.finish();
    }
    circuit.top.p_rst.data[0] = 0;
}

// Sends all beats, collects results. progress: beats in, results out, clock cycles.
int64_t fewbit_run(void *handle, const uint64_t *configuration, const uint64_t *beats,
                   uint64_t beat_count, uint64_t *results, uint64_t result_count,
                   uint64_t stall_seed, uint64_t patience, uint64_t silence,
                   uint64_t *progress) {
    Circuit &circuit = *static_cast<Circuit *>(handle);
    Stalls stalls{stall_seed};
    uint64_t held[RESULT_WORDS], now[RESULT_WORDS], nonsense[OPERAND_WORDS];
    uint64_t sent = 0, got = 0, cycles = 0, idle = 0;
    bool offering = false, holding = false;
    auto &i_valid = value_of(circuit.top.I_VALID).data[0];
    auto &o_ready = value_of(circuit.top.O_READY).data[0];
    Status status = DONE;
    circuit.configure(configuration);
    while (sent < beat_count || got < result_count) {
        bool go = true, ready = true;
        if (stall_seed) stalls.next(go, ready);
        if (!offering && sent < beat_count) {
            if (go) {
                circuit.load(beats + sent * OPERAND_WORDS);
                offering = true;
            } else {
                // An idle payload must not count, so it is what the next beat is not.
                for (size_t word = 0; word < OPERAND_WORDS; word++)
                    nonsense[word] = ~beats[sent * OPERAND_WORDS + word];
                circuit.load(nonsense);
            }
        }
        i_valid = offering;
        o_ready = ready;
        circuit.evaluate();
        const bool taken = offering && value_of(circuit.top.I_READY).data[0];
        const bool valid = value_of(circuit.top.O_VALID).data[0];
        if (holding && !valid) {
            status = WITHDRAWN;
        } else if (valid && got == result_count) {
            status = LEFT_OVER;
        } else if (valid && ready && !holding) {
            circuit.store(results + got * RESULT_WORDS);
        } else if (valid) {
            circuit.store(now);
            if (holding && std::memcmp(now, held, sizeof now)) status = UNSTABLE;
            std::memcpy(held, now, sizeof now);
            if (ready && !status) std::memcpy(results + got * RESULT_WORDS, now, sizeof now);
        }
        circuit.finish();
        if (status) break;
        holding = valid && !ready;
        got += valid && ready;
        cycles++;
        if (taken) {
            sent++;
            offering = false;
        }
        idle = taken || (valid && ready) ? 0 : idle + 1;
        if (idle > patience) {
            status = HUNG;
            break;
        }
    }
    i_valid = 0;
    o_ready = 1;
    for (uint64_t cycle = 0; status == DONE && cycle < silence; cycle++) {
        circuit.evaluate();
        if (value_of(circuit.top.O_VALID).data[0]) status = LEFT_OVER;
        circuit.finish();
    }
    progress[0] = sent;
    progress[1] = got;
    progress[2] = cycles;
    return status;
}
}
