// Gates and state of a GRU. Included once per instruction set (see body.h).

// 2^n and exp(x - n log 2) - 1 with n the integer next to x / log 2: exp(x) = scale * rest + scale.
// The polynomial is that of Cephes' expf; relative error 2e-7. NaN stays NaN.
static INLINE V exp_parts(V x, V *scale) {
    x = x > 87.0f ? broadcast(87.0f) : x;
    x = x < -87.0f ? broadcast(-87.0f) : x;
    // Adding 1.5 * 2^23 leaves no bits for a fraction, so it rounds.
    const V n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    const V f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    *scale = (V)((__builtin_convertvector(n, VI) + 127) << 23);
    return p * f * f + f;
}

static INLINE V sigmoid(V x) {
    V scale;
    const V rest = exp_parts(-x, &scale);
    return 1.0f / (1.0f + (rest * scale + scale));
}

// With exp(2x) - 1 rather than exp(2x), because small x then lose no digits.
static INLINE V tanh(V x) {
    V scale;
    const V rest = exp_parts(x + x, &scale);
    const V e = rest * scale + (scale - 1.0f);
    return e / (e + 2.0f);
}

static INLINE V gru_unit(V x_r, V x_z, V x_n, V h_r, V h_z, V h_n, V h) {
    const V r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z), n = tanh(x_n + r * h_n);
    // Like torch.lerp, exactly n where z is 0 and exactly h where z is 1.
    return z < 0.5f ? n + z * (h - n) : h - (h - n) * (1.0f - z);
}

// next [H] from the gates' products with input and state [3H], in the order r, z, n, and h [H].
static void gru_units(const float *gates_x, const float *gates_h, const float *h, float *next,
                      int first, int last, int H) {
    const float *x = gates_x, *y = gates_h;
    int i = first;
    for (; i + LANES <= last; i += LANES)
        store(next + i, gru_unit(load(x + i), load(x + H + i), load(x + 2 * H + i), load(y + i),
                                 load(y + H + i), load(y + 2 * H + i), load(h + i)));
    if (i < last) {
        const int count = last - i;
        const auto some = [=](const float *p) { return load_some(p + i, count); };
        float lanes[LANES];
        store(lanes, gru_unit(some(x), some(x + H), some(x + 2 * H), some(y), some(y + H),
                              some(y + 2 * H), some(h)));
        for (int j = 0; j < count; j++) next[i + j] = lanes[j];
    }
}
