// Suggests the next word or sentencepiece, as a keyboard does, by a GRU language model that
// `rnnprune export` wrote: C++ alone, without Python and torch (README.md).

#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <sstream>
#include <unordered_map>

#include "packed_file.h"

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// The most memory that this process has had, in MB; 0 where the system is not Linux.
double peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.compare(0, 6, "VmHWM:") == 0) return 1024e-6 * std::strtol(&line[6], nullptr, 10);
    return 0;
}

// The symbols of fairseq's dict.txt, in its order.
struct Dictionary {
    std::vector<std::string> symbols{"<s>", "<pad>", "</s>", "<unk>"};
    std::unordered_map<std::string, int> index;
    static constexpr int END = 2, UNKNOWN = 3;

    explicit Dictionary(const std::string &path) {
        std::ifstream file(path);
        if (!file) throw std::runtime_error("expected a dictionary, got " + path + ", which cannot be read");
        for (std::string line; std::getline(file, line);)
            symbols.push_back(line.substr(0, line.rfind(' ')));
        for (size_t i = 0; i < symbols.size(); i++) index.emplace(symbols[i], i);
    }

    int operator[](const std::string &symbol) const {
        const auto found = index.find(symbol);
        return found == index.end() ? UNKNOWN : found->second;
    }
};

// What a session has come to: it goes from symbol to symbol.
struct State {
    std::vector<float> hidden, logits;
};

// rnnprune_gru_lm with one output layer; it does not change, so sessions and threads may share it.
class Model {
public:
    explicit Model(PackedFile &file) : embedding(file.weights("decoder.embed_tokens.weight")) {
        if (file.has("decoder.adaptive_softmax.head.weight"))
            throw std::runtime_error("expected a model with one output layer, got an adaptive softmax");
        for (int i = 0; file.has(name("weight_hh", i)); i++)
            layers.push_back({file.factor(name("weight_ih", i), 3), file.factor(name("weight_hh", i), 3),
                              file.floats(name("bias_ih", i)), file.floats(name("bias_hh", i))});
        for (const std::string part : {"projection", "output_projection"})
            if (file.has("decoder." + part + ".weight"))
                linear.push_back({file.factor("decoder." + part + ".weight"),
                                  file.floats("decoder." + part + ".bias")});
        if (layers.empty() || linear.empty())
            throw std::runtime_error("expected an rnnprune_gru_lm, got another model");
        check();
        // The layers point at the matrices, so both stay where they are from now on.
        for (const Recurrent &layer : layers)
            for (const Weights *w : {&layer.input, &layer.recurrent}) matrices.push_back(w->matrix());
        for (const Linear &l : linear) products.push_back(l.weight.matrix());
        for (size_t i = 0; i < layers.size(); i++)
            network.push_back({&matrices[2 * i], &matrices[2 * i + 1], layers[i].input_bias.data(),
                               layers[i].recurrent_bias.data(), GRU, 0, 0, 0});
    }

    // Its parts point at each other.
    Model(const Model &) = delete;

    int symbols() const { return products.back().rows; }

    State start() const { return {std::vector<float>(network.size() * hidden_size()), {}}; }

    // Logits of what follows, after one more symbol; overwritten by the next call with this state.
    const std::vector<float> &step(int symbol, State &state) const {
        std::vector<float> x(embedding.shape.width), next(state.hidden.size()), top(hidden_size());
        embedding.row(symbol, x.data());
        succeed(rnnprune_network(network.data(), network.size(), 1, x.data(), state.hidden.data(), top.data(),
                                 next.data(), 1, 1, 1));
        state.hidden.swap(next);
        state.logits = top;
        for (size_t i = 0; i < linear.size(); i++) {
            x = state.logits;
            state.logits.resize(products[i].rows);
            succeed(rnnprune_matmul(&products[i], x.data(), linear[i].bias.data(), state.logits.data(), 1, 1));
        }
        return state.logits;
    }

private:
    struct Recurrent {
        Weights input, recurrent;
        Aligned<float> input_bias, recurrent_bias;
    };
    struct Linear {
        Weights weight;
        Aligned<float> bias;
    };

    Weights embedding;
    std::vector<Recurrent> layers;
    std::vector<Linear> linear;
    std::vector<Matrix> matrices, products;
    std::vector<Layer> network;

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
        for (const Linear &l : linear) {
            fits = fits && l.weight.shape.gates == 1 && l.weight.shape.width == (int)width;
            fits = fits && (!l.bias.size() || l.bias.size() == (size_t)l.weight.shape.rows);
            width = l.weight.shape.rows;
        }
        if (!fits || embedding.shape.rows != (int)width)
            throw std::runtime_error("expected the matrices of one model, got some that do not fit");
    }

    static std::string name(const std::string &kind, int layer) {
        return "decoder.gru." + kind + "_l" + std::to_string(layer);
    }
};

double log_sum(const std::vector<float> &logits) {
    const float largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (float x : logits) sum += std::exp(x - largest);
    return largest + std::log(sum);
}

// "\tSYMBOL PROBABILITY" of the n likeliest.
void print_likeliest(const std::vector<float> &logits, const Dictionary &dictionary, size_t n) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    n = std::min(n, order.size());
    std::partial_sort(order.begin(), order.begin() + n, order.end(),
                      [&](int a, int b) { return logits[a] > logits[b]; });
    const double total = log_sum(logits);
    for (size_t i = 0; i < n; i++)
        std::printf("\t%s %.3f", dictionary.symbols[order[i]].c_str(), std::exp(logits[order[i]] - total));
    std::printf("\n");
}

int main(int count, char **arguments) try {
    if (count != 3) {
        std::fprintf(stderr, "suggest MODEL.safetensors DICT.txt < LINES\n");
        return 2;
    }
    const auto start = Clock::now();
    PackedFile file(arguments[1]);
    const Dictionary dictionary(arguments[2]);
    Model model(file);
    if (model.symbols() != (int)dictionary.symbols.size())
        throw std::runtime_error("expected a dictionary of " + std::to_string(model.symbols()) +
                                 " symbols, got " + std::to_string(dictionary.symbols.size()));
    const double load = seconds_since(start);
    double loss = 0, seconds = 0;
    long symbols = 0;
    State state;
    const auto step = [&](int symbol) -> const std::vector<float> & {
        const auto before = Clock::now();
        const std::vector<float> &logits = model.step(symbol, state);
        seconds += seconds_since(before);
        symbols++;
        return logits;
    };
    for (std::string line, symbol; std::getline(std::cin, line);) {
        state = model.start();
        const std::vector<float> &logits = step(Dictionary::END);
        for (std::istringstream words(line); words >> symbol;) {
            const int next = dictionary[symbol];
            loss += log_sum(logits) - logits[next];
            step(next);
        }
        std::printf("%s", line.c_str());
        print_likeliest(logits, dictionary, 3);
        // The end of a line counts, as in fairseq-eval-lm.
        loss += log_sum(logits) - logits[Dictionary::END];
    }
    if (!symbols) throw std::runtime_error("expected lines on the standard input, got none");
    std::fprintf(stderr, "perplexity %.2f, %.1f us a symbol, loaded in %.1f ms, peak memory %.1f MB\n",
                 std::exp(loss / symbols), 1e6 * seconds / symbols, 1e3 * load, peak_memory());
} catch (const std::exception &error) {
    std::fprintf(stderr, "suggest: %s\n", error.what());
    return 1;
}
