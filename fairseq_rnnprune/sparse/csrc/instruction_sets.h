// body.h compiled for every instruction set of this kind of processor, and which of them this one has.
#pragma once

#include "kernels.h"

#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
// setup.py forbids it where the assembler is older than the compiler.
#if __has_include(<avxvnniintrin.h>) && !defined(NO_AVX_VNNI)
#define HAS_AVX_VNNI 1
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

#define TEXT(x) #x
#if defined(__clang__)
#define TARGET(features) \
    _Pragma(TEXT(clang attribute push(__attribute__((target(features))), apply_to = function)))
#define END_TARGET _Pragma("clang attribute pop")
#else
#define TARGET(features) _Pragma("GCC push_options") _Pragma(TEXT(GCC target(features)))
#define END_TARGET _Pragma("GCC pop_options")
#endif

#if defined(__x86_64__)
TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#define NAMESPACE avx512
#define NAME "avx512"
#define LANES 16
#define DOT 1
#include "body.h"
END_TARGET
#ifdef HAS_AVX_VNNI
TARGET("avxvnni,avx2,fma")
#define NAMESPACE avx_vnni
#define NAME "avx_vnni"
#define LANES 8
#define DOT 1
#include "body.h"
END_TARGET
#endif
TARGET("avx2,fma")
#define NAMESPACE avx2
#define NAME "avx2"
#define LANES 8
#define DOT 0
#include "body.h"
END_TARGET
#elif defined(__aarch64__)
#if defined(__clang__)
TARGET("dotprod")
#else
TARGET("arch=armv8.2-a+dotprod")
#endif
#define NAMESPACE neon_dot
#define NAME "neon_dot"
#define LANES 4
#define DOT 1
#include "body.h"
END_TARGET
#endif
#define NAMESPACE baseline
#define NAME "baseline"
#define LANES 4
#define DOT 0
#include "body.h"

// Best first.
static std::vector<const Kernels *> usable_kernels() {
    std::vector<const Kernels *> usable;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        usable.push_back(&avx512::KERNELS);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
#ifdef HAS_AVX_VNNI
        // Not every Clang that compiles for it knows its name here.
        unsigned eax = 0, ebx, ecx, edx;
        if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1 << 4))
            usable.push_back(&avx_vnni::KERNELS);
#endif
        usable.push_back(&avx2::KERNELS);
    }
#elif defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) usable.push_back(&neon_dot::KERNELS);
#elif defined(__aarch64__) && defined(__APPLE__)
    // All of Apple's that run Python have it.
    usable.push_back(&neon_dot::KERNELS);
#endif
    usable.push_back(&baseline::KERNELS);
    return usable;
}
