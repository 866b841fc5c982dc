// Gates and state of recurrent cells. Included once per instruction set (see body.h).
//
// The plain cells are right to a few units of float's last place; the coarse ones to 1e-4, which is
// less than what int8 weights and activations lose, and take half the time: in small networks,
// half of a step.

// exp(x) - 1 is rest * scale + (scale - 1), for x from -87 to 87. NaN stays NaN.
static INLINE V exp_parts(V x, V *scale) {
    const V rounded = x * 1.44269504f + ROUND, n = rounded - ROUND;
    const V f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    *scale = (V)(((VI)rounded + 127) << 23);
    // Cephes' expf, from the highest power on: (exp(f) - 1 - f) / f^2 for |f| <= log(2) / 2.
    V p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    return p * f * f + f;
}

// exp(-x), at most e^bound and at least e^-bound.
static INLINE V exp_minus(V x, float bound) {
    V scale;
    const V rest = exp_parts(clamp(-x, bound), &scale);
    return rest * scale + scale;
}

// tanh(s x), s a power of two, is p / q to 5e-5, by a minimax fit from -5 to 5, where s x is cut off. NaN stays NaN.
struct CoarseTanh {
    V p, q;
    explicit INLINE CoarseTanh(V unbounded, float s = 1.0f) {
        const V x = clamp(unbounded, 5.0f / s), u = x * x;
        const float s2 = s * s, s4 = s2 * s2;
        p = ((u * (6.5494469e-4f * s4 * s) + 1.0172317714e-1f * s2 * s) * u + 9.998101445e-1f * s) * x;
        q = (u * (1.2639189634e-2f * s4) + 4.345041006e-1f * s2) * u + 1.0f;
    }
};

#if LANES == 16
// Right to 14 bits; after a step of Newton to float's last places.
static INLINE V coarse_divide(V x, V y) { return x * (V)_mm512_rcp14_ps((__m512)y); }
static INLINE V divide(V x, V y) {
    const V r = (V)_mm512_rcp14_ps((__m512)y);
    return x * (r * (2.0f - y * r));
}
#else
static INLINE V coarse_divide(V x, V y) { return x / y; }
static INLINE V divide(V x, V y) { return x / y; }
#endif

// A cell computes the next state from GATES parts of x, of y and the state h: LANES units at a
// time, in two halves, because each is a long chain of operations that wait for one another.

struct GRUCell {
    // r, z, n
    static constexpr int GATES = 3;
    // What n is the tanh of.
    static INLINE V prepare(const V *x, const V *y) {
        return x[2] + y[2] / (1.0f + exp_minus(x[0] + y[0], 87.0f));
    }
    static INLINE V next(V prepared, const V *x, const V *y, V h, float) {
        // z = 1 / (1 + a) and n = (b - 1) / (b + 1), over one denominator. exp(x) - 1 instead of
        // exp(x), because small x then lose no digits; the bounds keep the product finite.
        const V a = exp_minus(x[1] + y[1], 43.0f);
        V scale;
        const V rest = exp_parts(clamp(2.0f * prepared, 43.0f), &scale);
        const V b_minus_1 = rest * scale + (scale - 1.0f), b_plus_1 = b_minus_1 + 2.0f;
        return (b_minus_1 * a + h * b_plus_1) / ((1.0f + a) * b_plus_1);
    }
};

struct CoarseGRUCell {
    static constexpr int GATES = 3;
    // sigmoid(x) = (1 + tanh(x / 2)) / 2
    static INLINE V prepare(const V *x, const V *y) {
        const CoarseTanh r(x[0] + y[0], 0.5f);
        return x[2] + (0.5f + 0.5f * coarse_divide(r.p, r.q)) * y[2];
    }
    static INLINE V next(V prepared, const V *x, const V *y, V h, float) {
        const CoarseTanh z(x[1] + y[1], 0.5f), n(prepared);
        // n + z (h - n), over one denominator.
        return divide(2.0f * z.q * n.p + (z.q + z.p) * (h * n.q - n.p), 2.0f * z.q * n.q);
    }
};

struct SimpleCell {
    static constexpr int GATES = 1;
    static INLINE V prepare(const V *x, const V *y) { return x[0] + y[0]; }
};

struct TanhCell : SimpleCell {
    static INLINE V next(V sum, const V *, const V *, V, float) {
        V scale;
        const V rest = exp_parts(clamp(2.0f * sum, 43.0f), &scale);
        const V b_minus_1 = rest * scale + (scale - 1.0f);
        return b_minus_1 / (b_minus_1 + 2.0f);
    }
};

struct CoarseTanhCell : SimpleCell {
    static INLINE V next(V sum, const V *, const V *, V, float) {
        const CoarseTanh tanh(sum);
        return divide(tanh.p, tanh.q);
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
