// A whole recurrent network in one call. Part of kernels.cpp, as operations.h is.

// states [T, B, H] of one direction of a layer from x [T, B, I] and h [B, H]. A few steps at a time,
// so that their gates stay in the cache.
void run_layer(const Layer &layer, const Product &input, const Product &product, const float *x,
               const float *h, float *states, int steps, int batch, int threads) {
    const Matrix &m = *layer.recurrent;
    const int many = batch < 16 ? 16 / batch : 1;
    const size_t size = (size_t)batch * m.width;
    float *gates = (float *)scratch(4, (size_t)at_most(steps, many) * batch * m.rows * 4);
    if (!layer.is_large) threads = 1;
    for (int done = 0; done < steps; done += many) {
        const int n = at_most(steps - done, many);
        const size_t first = layer.reverse ? steps - done - n : done;
        matmul_in_chunks(*layer.input, input, x + first * batch * layer.input->width,
                         layer.input_bias, gates, n * batch, threads);
        const float *before = !done ? h : states + (layer.reverse ? first + n : first - 1) * size;
        recurrent(m, product, (Cell)layer.cell, layer.ceiling, layer.reverse, gates,
                  layer.recurrent_bias, before, h, states + first * size, n, batch, threads);
    }
}

// out [T, B, directions * H] and h_n [n, B, H] of a network of n / directions layers, from
// x [T, B, I] and h_0 [n, B, H].
Status run_network(const Layer *layers, int n, int directions, const float *x, const float *h_0,
                   float *out, float *h_n, int steps, int batch, int threads) {
    const int H = layers->recurrent->width;
    const size_t size = (size_t)batch * H, rows = (size_t)steps * batch;
    std::vector<float> between[2], states(directions > 1 ? rows * H : 0);
    for (int i = 0; i < n; i++) {
        const Layer &layer = layers[i];
        const Product *input = find_product(*layer.input);
        const Product *product = find_product(*layer.recurrent);
        if (!input || !product) return UNSUPPORTED;
        const int depth = i / directions, direction = i % directions;
        float *to = out;
        if (i / directions < (n - 1) / directions) {
            between[depth % 2].resize(rows * directions * H);
            to = between[depth % 2].data();
        }
        float *all = directions > 1 ? states.data() : to;
        run_layer(layer, *input, *product, depth ? between[(depth - 1) % 2].data() : x,
                  h_0 + i * size, all, steps, batch, threads);
        const float *last = all + (layer.reverse ? 0 : steps - 1) * size;
        std::copy(last, last + size, h_n + i * size);
        if (directions > 1)
            for (size_t row = 0; row < rows; row++)
                std::copy(all + row * H, all + (row + 1) * H, to + (row * directions + direction) * H);
    }
    return OK;
}
