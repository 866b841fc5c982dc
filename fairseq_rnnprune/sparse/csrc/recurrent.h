// Gates and state of recurrent cells. Included once per instruction set (see body.h).

// tanh(s x), s a power of two, is p / q by a minimax fit, at whose bounds s x is cut off. NaN stays NaN.

// To a few units of float's last place. Near the bounds p is q or -q, so that gates may be exactly 0 or 1.
struct FineTanh {
    V p, q;
    explicit INLINE FineTanh(V unbounded, float s = 1.0f) {
        const V x = clamp(unbounded, 9.2f / s), u = x * x;
        const float s2 = s * s, s4 = s2 * s2, s6 = s4 * s2, s8 = s4 * s4;
        V even = u * (1.426914963e-8f * s8 * s) + 2.125098709e-5f * s6 * s;
        even = even * u + 3.534023372e-3f * s4 * s;
        even = even * u + 1.341324400e-1f * s2 * s;
        even = even * u + 9.999999882e-1f * s;
        q = u * (8.145091127e-7f * s8) + 3.348859104e-4f * s6;
        q = q * u + 2.602273810e-2f * s4;
        q = q * u + 4.674656673e-1f * s2;
        q = q * u + 1.0f;
        p = within(even * x, q);
    }
    // Of a gate, and of a state: exact, so that a gate of 1 keeps a state as it is.
    static INLINE V gate(V x, V y) { return x / y; }
    static INLINE V state(V x, V y) { return x / y; }
};

// To 5e-5: less than what int8 weights and activations lose, in two thirds of the time.
struct CoarseTanh {
    V p, q;
    explicit INLINE CoarseTanh(V unbounded, float s = 1.0f) {
        const V x = clamp(unbounded, 5.0f / s), u = x * x;
        const float s2 = s * s, s4 = s2 * s2;
        p = ((u * (6.5494469e-4f * s4 * s) + 1.0172317714e-1f * s2 * s) * u + 9.998101445e-1f * s) * x;
        q = (u * (1.2639189634e-2f * s4) + 4.345041006e-1f * s2) * u + 1.0f;
    }
#if LANES == 16
    // Right to 14 bits; after a step of Newton to float's last places.
    static INLINE V gate(V x, V y) { return x * (V)_mm512_rcp14_ps((__m512)y); }
    static INLINE V state(V x, V y) {
        const V r = (V)_mm512_rcp14_ps((__m512)y);
        return x * (r * (2.0f - y * r));
    }
#else
    static INLINE V gate(V x, V y) { return x / y; }
    static INLINE V state(V x, V y) { return x / y; }
#endif
};

// A cell computes the next state from GATES parts of x, of y and the state h: LANES units at a
// time, in two halves, because each is a long chain of operations that wait for one another.

template <class Tanh> struct GRUCell {
    // r, z, n
    static constexpr int GATES = 3;
    // What n is the tanh of. sigmoid(x) = (1 + tanh(x / 2)) / 2
    static INLINE V prepare(const V *x, const V *y) {
        const Tanh r(x[0] + y[0], 0.5f);
        return x[2] + (0.5f + 0.5f * Tanh::gate(r.p, r.q)) * y[2];
    }
    static INLINE V next(V prepared, const V *x, const V *y, V h, float) {
        const Tanh z(x[1] + y[1], 0.5f), n(prepared);
        // n + z (h - n), over one denominator.
        return Tanh::state(2.0f * z.q * n.p + (z.q + z.p) * (h * n.q - n.p), 2.0f * z.q * n.q);
    }
};

struct SimpleCell {
    static constexpr int GATES = 1;
    static INLINE V prepare(const V *x, const V *y) { return x[0] + y[0]; }
};

template <class Tanh> struct TanhCell : SimpleCell {
    static INLINE V next(V sum, const V *, const V *, V, float) {
        const Tanh tanh(sum);
        return Tanh::state(tanh.p, tanh.q);
    }
};

struct ReLUCell : SimpleCell {
    static INLINE V next(V sum, const V *, const V *, V, float ceiling) {
        const V positive = sum < 0.0f ? V{} : sum;
        return positive > ceiling ? broadcast(ceiling) : positive;
    }
};

// The gates of the units from `i` on, as a vector of each or, of fewer, with zeros.
template <int G> struct Gates {
    V x[G], y[G];
    template <class Get>
    INLINE Gates(const float *from_x, const float *from_y, int H, int i, Get get) {
        for (int g = 0; g < G; g++) {
            x[g] = get(from_x + (size_t)g * H + i);
            y[g] = get(from_y + (size_t)g * H + i);
        }
    }
};

// A Units function.
template <class Cell>
static void units(const float *x, const float *y, const float *h, float *next, int first, int last,
                  int H, float ceiling) {
    typedef Gates<Cell::GATES> CellGates;
    // So many vectors at once that their chains overlap.
    constexpr int U = 4;
    const auto whole = [](const float *p) INLINE_LAMBDA { return load(p); };
    int i = first;
    for (; i + U * LANES <= last; i += U * LANES) {
        V prepared[U];
        for (int u = 0; u < U; u++) {
            const CellGates gates(x, y, H, i + u * LANES, whole);
            prepared[u] = Cell::prepare(gates.x, gates.y);
        }
        for (int u = 0; u < U; u++) {
            const CellGates gates(x, y, H, i + u * LANES, whole);
            store(next + i + u * LANES,
                  Cell::next(prepared[u], gates.x, gates.y, load(h + i + u * LANES), ceiling));
        }
    }
    const auto one = [&](auto get) INLINE_LAMBDA {
        const CellGates gates(x, y, H, i, get);
        return Cell::next(Cell::prepare(gates.x, gates.y), gates.x, gates.y, get(h + i), ceiling);
    };
    for (; i + LANES <= last; i += LANES) store(next + i, one(whole));
    if (i < last) {
        const int count = last - i;
        float lanes[LANES];
        store(lanes, one([=](const float *p) { return load_some(p, count); }));
        for (int j = 0; j < count; j++) next[i + j] = lanes[j];
    }
}
