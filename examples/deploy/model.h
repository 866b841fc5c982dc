// rnnprune_gru_lm, from a file of `rnnprune export`, and the kernels that run it.
#pragma once

#include <cmath>

#include "packed_file.h"

// What a session has come to: it goes from symbol to symbol.
struct State {
    std::vector<float> hidden, logits;
};

inline double log_sum(const float *logits, size_t n) {
    const float largest = *std::max_element(logits, logits + n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += std::exp(logits[i] - largest);
    return largest + std::log(sum);
}

// Linear layers, one after another.
class Chain {
public:
    Chain(PackedFile &file, const std::vector<std::string> &names) {
        for (const std::string &name : names)
            if (file.has(name + ".weight")) {
                weights.push_back(file.factor(name + ".weight"));
                biases.push_back(file.floats(name + ".bias"));
                matrices.push_back(weights.back().matrix());
            }
    }

    bool empty() const { return weights.empty(); }
    size_t size() const { return matrices.back().rows; }

    // Whether every layer takes what the one before gives.
    bool fits(size_t width) const {
        bool fits = true;
        for (size_t i = 0; i < weights.size(); i++) {
            fits = fits && weights[i].shape.gates == 1 && weights[i].shape.width == (int)width;
            width = weights[i].shape.rows;
            fits = fits && (!biases[i].size() || biases[i].size() == width);
        }
        return fits;
    }

    std::vector<float> operator()(std::vector<float> x) const {
        for (size_t i = 0; i < matrices.size(); i++) {
            std::vector<float> y(matrices[i].rows);
            if (rnnprune_matmul(&matrices[i], x.data(), biases[i].data(), y.data(), 1, 1)) throw std::bad_alloc();
            x.swap(y);
        }
        return x;
    }

private:
    std::vector<Weights> weights;
    std::vector<Aligned<float>> biases;
    std::vector<Matrix> matrices;
};

// rnnprune_gru_lm; it does not change, so sessions and threads may share it.
class Model {
public:
    explicit Model(PackedFile &file)
        : embedding(file.weights("decoder.embed_tokens.weight")),
          output(file, {"decoder.projection", "decoder.output_projection", "decoder.adaptive_softmax.head"}) {
        for (int i = 0; file.has(name("weight_hh", i)); i++)
            layers.push_back({file.factor(name("weight_ih", i), 3), file.factor(name("weight_hh", i), 3),
                              file.floats(name("bias_ih", i)), file.floats(name("bias_hh", i))});
        const std::string tail = "decoder.adaptive_softmax.tail.";
        for (int i = 0; file.has(tail + std::to_string(i) + ".0.weight"); i++)
            clusters.emplace_back(file, std::vector<std::string>{tail + std::to_string(i) + ".0",
                                                                 tail + std::to_string(i) + ".2"});
        if (layers.empty() || output.empty())
            throw std::runtime_error("expected an rnnprune_gru_lm, got another model");
        check();
        // The layers point at the matrices, so both stay where they are from now on.
        for (const Recurrent &layer : layers)
            for (const Weights *w : {&layer.input, &layer.recurrent}) matrices.push_back(w->matrix());
        for (size_t i = 0; i < layers.size(); i++)
            network.push_back({&matrices[2 * i], &matrices[2 * i + 1], layers[i].input_bias.data(),
                               layers[i].recurrent_bias.data(), GRU, 0, 0, 0});
    }

    // Its parts point at each other.
    Model(const Model &) = delete;

    int symbols() const { return embedding.shape.rows; }

    State start() const { return {std::vector<float>(network.size() * hidden_size()), {}}; }

    // Logits of what follows, after one more symbol; overwritten by the next call with this state.
    const std::vector<float> &step(int symbol, State &state) const {
        std::vector<float> x(embedding.shape.width), next(state.hidden.size()), top(hidden_size());
        embedding.row(symbol, x.data());
        succeed(rnnprune_network(network.data(), network.size(), 1, x.data(), state.hidden.data(), top.data(),
                                 next.data(), 1, 1, 1));
        state.hidden.swap(next);
        state.logits = output(top);
        if (clusters.size()) add_clusters(top, state.logits);
        return state.logits;
    }

private:
    struct Recurrent {
        Weights input, recurrent;
        Aligned<float> input_bias, recurrent_bias;
    };

    Weights embedding;
    std::vector<Recurrent> layers;
    Chain output;
    // Of an adaptive softmax, for the rarer symbols (arXiv 1609.04309).
    std::vector<Chain> clusters;
    std::vector<Matrix> matrices;
    std::vector<Layer> network;

    // The last logits of an adaptive softmax are those of its clusters, whose symbols share them out.
    void add_clusters(const std::vector<float> &top, std::vector<float> &logits) const {
        const std::vector<float> shares(logits.end() - clusters.size(), logits.end());
        logits.resize(logits.size() - clusters.size());
        for (size_t i = 0; i < clusters.size(); i++) {
            const std::vector<float> found = clusters[i](top);
            const double offset = shares[i] - log_sum(found.data(), found.size());
            for (float x : found) logits.push_back(x + offset);
        }
    }

    int hidden_size() const { return layers[0].recurrent.shape.width; }

    static void succeed(int status) {
        if (status) throw std::bad_alloc();
    }

    // Whether every part takes what the one before gives: the kernels do not look.
    void check() const {
        const size_t H = hidden_size();
        size_t width = embedding.shape.width;
        bool fits = true;
        for (const Recurrent &layer : layers) {
            for (const Weights *w : {&layer.input, &layer.recurrent})
                fits = fits && w->shape.gates == 3 && w->shape.rows == (int)(3 * H);
            for (const auto *bias : {&layer.input_bias, &layer.recurrent_bias})
                fits = fits && bias->size() == 3 * H;
            fits = fits && layer.input.shape.width == (int)width && layer.recurrent.shape.width == (int)H;
            width = H;
        }
        fits = fits && output.fits(width) && output.size() >= clusters.size();
        size_t symbols = output.size() - clusters.size();
        for (const Chain &cluster : clusters) {
            fits = fits && cluster.fits(width);
            symbols += cluster.size();
        }
        if (!fits || embedding.shape.rows != (int)symbols)
            throw std::runtime_error("expected the matrices of one model, got some that do not fit");
    }

    static std::string name(const std::string &kind, int layer) {
        return "decoder.gru." + kind + "_l" + std::to_string(layer);
    }
};
