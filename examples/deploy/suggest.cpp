// Suggests the next word or sentencepiece, as a keyboard does, by a GRU language model that
// `rnnprune export` wrote: C++ alone, without Python and torch (README.md).

#include <chrono>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <sstream>
#include <unordered_map>

#include "model.h"

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

// "\tSYMBOL PROBABILITY" of the n likeliest.
void print_likeliest(const std::vector<float> &logits, const Dictionary &dictionary, size_t n) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    n = std::min(n, order.size());
    std::partial_sort(order.begin(), order.begin() + n, order.end(),
                      [&](int a, int b) { return logits[a] > logits[b]; });
    const double total = log_sum(logits.data(), logits.size());
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
            loss += log_sum(logits.data(), logits.size()) - logits[next];
            step(next);
        }
        std::printf("%s", line.c_str());
        print_likeliest(logits, dictionary, 3);
        // The end of a line counts, as in fairseq-eval-lm.
        loss += log_sum(logits.data(), logits.size()) - logits[Dictionary::END];
    }
    if (!symbols) throw std::runtime_error("expected lines on the standard input, got none");
    std::fprintf(stderr, "perplexity %.2f, %.1f us a symbol, loaded in %.1f ms, peak memory %.1f MB\n",
                 std::exp(loss / symbols), 1e6 * seconds / symbols, 1e3 * load, peak_memory());
} catch (const std::exception &error) {
    std::fprintf(stderr, "suggest: %s\n", error.what());
    return 1;
}
