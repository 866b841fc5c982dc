// Reads what `rnnprune export` writes: safetensors, whose matrices lie there as the kernels want them.
#pragma once

#include <fstream>

#include "json.h"
#include "weights.h"

class PackedFile {
public:
    // std::runtime_error for anything but a file of `rnnprune export`, here and where it is torn.
    explicit PackedFile(const std::string &path) : file(path, std::ios::binary | std::ios::ate) {
        const int64_t bytes = file.tellg();
        uint64_t length = 0;
        read(0, &length, 8);
        if (bytes < 8 || length > (uint64_t)bytes - 8) fail();
        std::string text(length, '\0');
        read(8, &text[0], length);
        header = Json::parse(text);
        const Json &metadata = header["__metadata__"];
        const std::string format = metadata["format"].text;
        if (format.compare(0, 9, "rnnprune ") == 0 && format != "rnnprune 1")
            throw std::runtime_error("expected a file of format rnnprune 1, got " + format);
        if (format != "rnnprune 1") fail();
        layout = Json::parse(metadata["layout"].text);
        start = 8 + length, size = bytes - start;
    }

    bool has(const std::string &name) const {
        return layout["packed"].has(name) || layout["tied"].has(name) || header.has(name);
    }

    // A matrix with that many gates in its rows, as the file has it.
    Weights weights(std::string name, int gates = 1) {
        if (layout["tied"].has(name)) name = layout["tied"][name].text;
        Weights w = layout["packed"].has(name) ? packed(name) : dense(name, gates);
        w.check();
        if (w.shape.dtype == INT8) w.offsets = offsets(w);
        return w;
    }

    // The same, for multiplication.
    Weights factor(const std::string &name, int gates = 1) {
        Weights w = weights(name, gates);
        return w.has_kernel() ? std::move(w) : w.in_columns();
    }

    // A vector in float32, such as a bias; empty if the file has none of that name.
    Aligned<float> floats(const std::string &name) {
        return header.has(name) ? array<float>(name, "F32") : Aligned<float>();
    }

private:
    std::ifstream file;
    Json header, layout;
    int64_t start = 0, size = 0;

    [[noreturn]] static void fail() {
        throw std::runtime_error("expected a whole file of rnnprune export, got something else");
    }

    void read(int64_t position, void *to, int64_t bytes) {
        file.seekg(position);
        if (!file.read((char *)to, bytes)) fail();
    }

    template <class T>
    Aligned<T> array(const std::string &name, const std::string &dtype = "") {
        const Json &entry = header[name], &ends = entry["data_offsets"];
        if (ends.items.size() != 2 || (!dtype.empty() && entry["dtype"].text != dtype)) fail();
        const int64_t first = ends.items[0].number(), bytes = ends.items[1].number() - first;
        if (first < 0 || bytes < 0 || first + bytes > size || bytes % sizeof(T)) fail();
        Aligned<T> array(bytes / sizeof(T));
        read(start + first, array.data(), bytes);
        return array;
    }

    // Entry i of the two that a matrix's shape has.
    static int size_of(const Json &shape, int i) {
        if (shape.items.size() != 2 || shape.items[i].number() > 1 << 28) fail();
        return shape.items[i].number();
    }

    static Dtype dtype(const std::string &name) {
        if (name == "F16")
            throw std::runtime_error("expected values in F32, BF16, I16 or I8, got F16: the checkpoint is in half "
                                     "precision; export it with --values bf16, int16 or int8");
        if (name != "F32" && name != "BF16" && name != "I16" && name != "I8") fail();
        return name == "F32" ? FLOAT32 : name == "BF16" ? BFLOAT16 : name == "I16" ? INT16 : INT8;
    }

    Weights packed(const std::string &name) {
        const Json &how = layout["packed"][name];
        Weights w;
        w.shape.rows = size_of(how["shape"], 0), w.shape.width = size_of(how["shape"], 1);
        w.shape.block_rows = size_of(how["block_shape"], 0);
        w.shape.block_columns = size_of(how["block_shape"], 1);
        w.shape.gates = how["gates"].number();
        w.shape.dtype = dtype(header[name + "/values"]["dtype"].text);
        w.values = array<char>(name + "/values");
        w.columns = array<uint16_t>(name + "/columns", "U16");
        w.pointers = array<int32_t>(name + "/pointers", "I32");
        w.scales = floats(name + "/scales"), w.diagonal = floats(name + "/diagonal");
        return w;
    }

    // A dense matrix is one of blocks as wide as itself.
    Weights dense(const std::string &name, int gates) {
        const Json &entry = header[name];
        Weights w;
        w.shape.rows = size_of(entry["shape"], 0), w.shape.width = size_of(entry["shape"], 1);
        w.shape.block_rows = 1, w.shape.block_columns = w.shape.width, w.shape.gates = gates;
        w.shape.dtype = dtype(entry["dtype"].text);
        w.values = array<char>(name);
        w.columns = Aligned<uint16_t>(w.shape.rows);
        w.pointers = Aligned<int32_t>(w.shape.rows + 1);
        for (int i = 0; i <= w.shape.rows; i++) w.pointers[i] = i;
        return w;
    }

    // What the 128 that makes 8-bit activations unsigned adds to each row (kernels.h).
    static Aligned<int32_t> offsets(const Weights &w) {
        const int r = w.shape.block_rows, c = w.shape.block_columns;
        Aligned<int32_t> sums((w.pointers.size() - 1) * r);
        for (size_t p = 0; p + 1 < w.pointers.size(); p++)
            for (size_t i = (size_t)w.pointers[p] * r * c; i < (size_t)w.pointers[p + 1] * r * c; i++)
                sums[p * r + i / c % r] += 128 * (int8_t)w.values[i];
        return sums;
    }
};
