// A number of a GRU's steps, for instructions.py to count what they take.
//
//   instructions INSTRUCTION_SET HIDDEN DENSITY BLOCK_ROWS BLOCK_COLUMNS DTYPE STEPS

#include <cstdlib>
#include <vector>

#include "instruction_set.h"
#include "random_matrix.h"

int main(int, char **arguments) {
    const auto number = [&](int i) { return std::atoi(arguments[i]); };
    use_instruction_set(arguments[1]);
    const int H = number(2), steps = number(7);
    const RandomMatrix matrix(H, std::atof(arguments[3]), number(4), number(5), number(6));
    std::vector<float> gates((size_t)steps * 3 * H, 0.1f), bias(3 * H, 0.1f), h(H, 0.1f);
    std::vector<float> states((size_t)steps * H);
    return rnnprune_recurrent(&matrix.m, GRU, 0, gates.data(), bias.data(), h.data(), states.data(),
                              steps, 1, 1);
}
