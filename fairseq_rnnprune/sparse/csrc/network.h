// A sequence of a recurrent layer, and a whole network in one call. Part of kernels.cpp, as operations.h is.

// states [T, B, H] from gates_x [T, B, G * H], bias [G * H] and h [B, H], which comes before the first
// step or, in reverse, after the last; h_0 [B, H] is what came before the whole sequence of which this
// may be a part. A thread owns the same units in all gates, so that threads
// wait for one another only once per step, for the state.
void recurrent(const Matrix &m, const Product &product, Cell cell, float ceiling, bool reverse,
               const float *gates_x, const float *bias, const float *h, const float *h_0,
               float *states, int steps, int batch, int threads) {
    const int H = m.width;
    const bool copies = !is_packed(m, product, batch);
    Activations state[2] = {{h, nullptr, batch, 1}, {h, nullptr, batch, 1}};
    if (copies)
        for (int i = 0; i < 2; i++) state[i] = layout(m, product, batch, i);
    // States lie between their predecessor and a tanh, so one scale fits a whole sequence. It is kept twice: who
    // packs a NaN sets that of the next state, while others still multiply with this one's. States of a ReLU need
    // one in each step, for which the threads wait once more.
    const bool scales_each_step = product.levels && cell == RELU;
    if (scales_each_step) state[0].scales = activation_scales(h, state[0], H, product.levels, 1e-30f);
    else if (product.levels) {
        const int padded = padded_batch(batch, state[0].tile);
        state[0].scales = activation_scales(h_0, state[0], H, product.levels, 1.0f);
        state[1].scales = (float *)scratch(5, padded * sizeof(float));
        std::copy(state[0].scales, state[0].scales + padded, state[1].scales);
    }
    float *gates_h = (float *)scratch(3, (size_t)batch * m.rows * sizeof(float));
    const auto units = (product.levels ? kernels->coarse_units : kernels->units)[cell];
    const uint32_t products = m.count_products(steps);

    in_threads(threads, [&](int t, int n) {
        const Parts parts(m, first_panel(m, t, n), first_panel(m, t + 1, n));
        const int first_unit = at_most((int64_t)parts.first * m.block_rows, H);
        const int last_unit = at_most((int64_t)parts.last * m.block_rows, H);
        // Units that fill a block column in part belong to one thread, as the column does.
        const auto column = [&](int unit) {
            return (unit + m.block_columns - 1) / m.block_columns;
        };
        const int first_column = column(first_unit), last_column = column(last_unit);
        Activations mine[2] = {state[0], state[1]};
        if (copies) {
            product.pack(m, first_column, last_column, h, mine[0]);
            barrier(n);
        }
        for (int step = 0; step < steps; step++) {
            const size_t size = (size_t)batch * H;
            const int64_t at = reverse ? steps - 1 - step : step;
            const float *before = step ? states + (reverse ? at + 1 : at - 1) * size : h;
            float *after = states + at * size;
            Activations &x = mine[step % 2], &next = mine[(step + 1) % 2];
            if (!copies) x.data = before;
            const bool backwards = (products + step) % 2;
            multiply(m, product, parts, backwards, before, x, bias, gates_h);
            for (int b = 0; b < batch; b++)
                units(gates_x + (at * (size_t)batch + b) * m.rows, gates_h + (size_t)b * m.rows,
                      before + (size_t)b * H, after + (size_t)b * H, first_unit, last_unit, H,
                      ceiling);
            if (scales_each_step) {
                barrier(n);
                next.scales = activation_scales(after, next, H, product.levels, 1e-30f);
            }
            if (copies) product.pack(m, first_column, last_column, after, next);
            barrier(n);
        }
    });
}

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
