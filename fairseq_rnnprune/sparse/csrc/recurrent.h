// Gates and state of recurrent cells. Included once per instruction set (see body.h).
//
// Exact is right to a few units of float's last place; Coarse to 1e-4, which is less than what int8
// weights and activations lose, and takes half the time: in small networks, half of a step.

struct Exact {
    // Cephes' expf, from the highest power on: (exp(f) - 1 - f) / f^2 for |f| <= log(2) / 2.
    static INLINE V exp_tail(V f) {
        V p = f * 1.9875691500e-4f + 1.3981999507e-3f;
        p = p * f + 8.3334519073e-3f;
        p = p * f + 4.1665795894e-2f;
        p = p * f + 1.6666665459e-1f;
        return p * f + 5.0000001201e-1f;
    }
    static INLINE V divide(V x, V y) { return x / y; }
};

struct Coarse {
    static INLINE V exp_tail(V f) { return (f * 4.1666667e-2f + 1.6666667e-1f) * f + 5.0e-1f; }
#if LANES == 16
    // 14 bits of 1 / y.
    static INLINE V divide(V x, V y) { return x * (V)_mm512_rcp14_ps((__m512)y); }
#else
    static INLINE V divide(V x, V y) { return x / y; }
#endif
};

// exp(x) - 1 is rest * scale + (scale - 1), for x from -87 to 87. NaN stays NaN.
template <class Precision> static INLINE V exp_parts(V x, V *scale) {
    const V rounded = x * 1.44269504f + ROUND, n = rounded - ROUND;
    const V f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    *scale = (V)(((VI)rounded + 127) << 23);
    return Precision::exp_tail(f) * f * f + f;
}

// exp(-x), at most e^bound and at least e^-bound.
template <class Precision> static INLINE V exp_minus(V x, float bound) {
    V scale;
    const V rest = exp_parts<Precision>(clamp(-x, bound), &scale);
    return rest * scale + scale;
}

template <class Precision>
static INLINE V gru_unit(V x_r, V x_z, V x_n, V h_r, V h_z, V h_n, V h) {
    const V r = Precision::divide(broadcast(1.0f), 1.0f + exp_minus<Precision>(x_r + h_r, 87.0f));
    // z = 1 / (1 + a) and n = (b - 1) / (b + 1), over one denominator. exp(x) - 1 instead of exp(x),
    // because small x then lose no digits; the bounds leave its product within float's range.
    const V a = exp_minus<Precision>(x_z + h_z, 43.0f);
    V scale;
    const V rest = exp_parts<Precision>(clamp(2.0f * (x_n + r * h_n), 43.0f), &scale);
    const V b_minus_1 = rest * scale + (scale - 1.0f), b_plus_1 = b_minus_1 + 2.0f;
    return Precision::divide(b_minus_1 * a + h * b_plus_1, (1.0f + a) * b_plus_1);
}

// next [H] from the gates' products with input and state [3H], in the order r, z, n, and h [H].
template <class Precision>
static void gru_units(const float *gates_x, const float *gates_h, const float *h, float *next,
                      int first, int last, int H) {
    const float *x = gates_x, *y = gates_h;
    int i = first;
    for (; i + LANES <= last; i += LANES)
        store(next + i, gru_unit<Precision>(load(x + i), load(x + H + i), load(x + 2 * H + i),
                                            load(y + i), load(y + H + i), load(y + 2 * H + i),
                                            load(h + i)));
    if (i < last) {
        const int count = last - i;
        const auto some = [=](const float *p) { return load_some(p + i, count); };
        float lanes[LANES];
        store(lanes,
              gru_unit<Precision>(some(x), some(x + H), some(x + 2 * H), some(y), some(y + H),
                                  some(y + 2 * H), some(h)));
        for (int j = 0; j < count; j++) next[i + j] = lanes[j];
    }
}
