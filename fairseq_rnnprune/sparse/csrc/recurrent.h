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

// tanh(x) is p / q to 5e-5, by a minimax fit from -5 to 5, where x is cut off. NaN stays NaN.
struct CoarseTanh {
    V p, q;
    explicit INLINE CoarseTanh(V unbounded) {
        const V x = clamp(unbounded, 5.0f), u = x * x;
        p = ((u * 6.5494469e-4f + 1.0172317714e-1f) * u + 9.998101445e-1f) * x;
        q = (u * 1.2639189634e-2f + 4.345041006e-1f) * u + 1.0f;
    }
};

#if LANES == 16
// 14 bits of 1 / y.
static INLINE V divide(V x, V y) { return x * (V)_mm512_rcp14_ps((__m512)y); }
#else
static INLINE V divide(V x, V y) { return x / y; }
#endif

// A cell computes next from GATES parts of x, of y and the state h: LANES units at a time.

struct GRUCell {
    // r, z, n
    static constexpr int GATES = 3;
    static INLINE V next(const V *x, const V *y, V h, float) {
        const V r = 1.0f / (1.0f + exp_minus(x[0] + y[0], 87.0f));
        // z = 1 / (1 + a) and n = (b - 1) / (b + 1), over one denominator. exp(x) - 1 instead of
        // exp(x), because small x then lose no digits; the bounds keep the product finite.
        const V a = exp_minus(x[1] + y[1], 43.0f);
        V scale;
        const V rest = exp_parts(clamp(2.0f * (x[2] + r * y[2]), 43.0f), &scale);
        const V b_minus_1 = rest * scale + (scale - 1.0f), b_plus_1 = b_minus_1 + 2.0f;
        return (b_minus_1 * a + h * b_plus_1) / ((1.0f + a) * b_plus_1);
    }
};

struct CoarseGRUCell {
    static constexpr int GATES = 3;
    static INLINE V next(const V *x, const V *y, V h, float) {
        // sigmoid(x) = (1 + tanh(x / 2)) / 2
        const CoarseTanh r(0.5f * (x[0] + y[0])), z(0.5f * (x[1] + y[1]));
        const CoarseTanh n(x[2] + (0.5f + 0.5f * divide(r.p, r.q)) * y[2]);
        // n + z (h - n), over one denominator.
        return divide(2.0f * z.q * n.p + (z.q + z.p) * (h * n.q - n.p), 2.0f * z.q * n.q);
    }
};

struct TanhCell {
    static constexpr int GATES = 1;
    static INLINE V next(const V *x, const V *y, V, float) {
        V scale;
        const V rest = exp_parts(clamp(2.0f * (x[0] + y[0]), 43.0f), &scale);
        const V b_minus_1 = rest * scale + (scale - 1.0f);
        return b_minus_1 / (b_minus_1 + 2.0f);
    }
};

struct CoarseTanhCell {
    static constexpr int GATES = 1;
    static INLINE V next(const V *x, const V *y, V, float) {
        const CoarseTanh tanh(x[0] + y[0]);
        return divide(tanh.p, tanh.q);
    }
};

struct ReLUCell {
    static constexpr int GATES = 1;
    static INLINE V next(const V *x, const V *y, V, float ceiling) {
        const V sum = x[0] + y[0];
        const V positive = sum < 0.0f ? V{} : sum;
        return positive > ceiling ? broadcast(ceiling) : positive;
    }
};

// A Units function.
template <class Cell>
static void units(const float *x, const float *y, const float *h, float *next, int first, int last,
                  int H, float ceiling) {
    constexpr int G = Cell::GATES;
    const auto next_units = [=](int i, auto get) INLINE_LAMBDA {
        V gates_x[G], gates_y[G];
        for (int g = 0; g < G; g++) {
            gates_x[g] = get(x + (size_t)g * H + i);
            gates_y[g] = get(y + (size_t)g * H + i);
        }
        return Cell::next(gates_x, gates_y, get(h + i), ceiling);
    };
    int i = first;
    for (; i + LANES <= last; i += LANES)
        store(next + i, next_units(i, [](const float *p) INLINE_LAMBDA { return load(p); }));
    if (i < last) {
        const int count = last - i;
        float lanes[LANES];
        store(lanes, next_units(i, [=](const float *p) { return load_some(p, count); }));
        for (int j = 0; j < count; j++) next[i + j] = lanes[j];
    }
}
