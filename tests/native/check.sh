#!/bin/sh
# Checks the native kernels beyond what pytest does:
#   tests/native/check.sh sanitizer   parity.cpp and the Python tests with AddressSanitizer and UBSan
#   tests/native/check.sh aarch64     parity.cpp cross-compiled, under qemu-user
#                                     (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)
set -eu
cd "$(dirname "$0")/../.."
csrc=fairseq_rnnprune/sparse/csrc
flags="-std=c++17 -Wall -Wextra -Wno-psabi -Wno-maybe-uninitialized -Wno-uninitialized -fopenmp -I $csrc"
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

case "${1:-}" in
sanitizer)
    sanitize="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    ${CXX:-g++} $flags $sanitize $csrc/kernels.cpp tests/native/parity.cpp -o "$build/parity"
    "$build/parity"
    # The interpreter is not built with the sanitizer, so its runtime has to come first.
    cp -r fairseq_rnnprune "$build"
    rm -f "$build"/fairseq_rnnprune/sparse/_kernels*.so
    ${CXX:-g++} $flags $sanitize -fPIC -shared $csrc/kernels.cpp \
        -o "$build/fairseq_rnnprune/sparse/_kernels.so"
    LD_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so) $(${CXX:-g++} -print-file-name=libstdc++.so)" \
        ASAN_OPTIONS=detect_leaks=0 ${PYTHON:-python3} -m pytest -q -p no:cacheprovider \
        -o pythonpath="$build" tests/test_cpu_kernels.py tests/test_cpu_fuzz.py \
        tests/test_cpu_network.py tests/test_cpu_refused.py tests/test_sparse_rnn.py
    ;;
aarch64)
    # Static, so that the emulator needs no libraries of the other system.
    aarch64-linux-gnu-g++ $flags -O3 -static $csrc/kernels.cpp tests/native/parity.cpp \
        -o "$build/parity"
    qemu-aarch64 "$build/parity"
    # One that lacks the instructions of neon_dot.
    qemu-aarch64 -cpu cortex-a53 "$build/parity"
    ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
