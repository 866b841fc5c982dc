// The instruction set that a benchmark names.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels.h"

// All calls from now on use it; ends the program where this processor has none of that name.
inline void use_instruction_set(const char *wanted) {
    for (int i = 0; const char *name = rnnprune_instruction_set(i); i++)
        if (!std::strcmp(name, wanted)) {
            rnnprune_use_instruction_set(i);
            return;
        }
    std::fprintf(stderr, "expected an instruction set among");
    for (int i = 0; const char *name = rnnprune_instruction_set(i); i++)
        std::fprintf(stderr, " %s", name);
    std::fprintf(stderr, ", got %s\n", wanted);
    std::exit(2);
}
