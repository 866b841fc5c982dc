// As much of JSON as a packed file's header needs: a value, its members, its items.
#pragma once

#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
    std::map<std::string, Json> members;  // of an object
    std::vector<Json> items;              // of an array
    std::string text;                     // of a string, a number, true, false or null

    bool has(const std::string &name) const { return members.count(name) > 0; }

    const Json &operator[](const std::string &name) const {
        const auto found = members.find(name);
        if (found == members.end()) throw std::runtime_error("expected " + name + " in it, got none");
        return found->second;
    }

    long number() const { return std::strtol(text.c_str(), nullptr, 10); }

    static Json parse(const std::string &text) {
        const char *at = text.c_str();
        return Parser{at, at + text.size()}.value();
    }

private:
    struct Parser {
        const char *at, *end;  // `end` is a zero, so *at can always be read
        int depth = 0;

        [[noreturn]] void fail() const { throw std::runtime_error("expected JSON, got something else"); }

        char next() {
            while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') at++;
            return *at;
        }

        void expect(char c) {
            if (next() != c) fail();
            at++;
        }

        bool more(char close) {
            if (next() != close) return true;
            at++;
            return false;
        }

        Json value() {
            // Torn or hostile files must not use up the stack.
            if (++depth > 100) fail();
            Json json;
            const char c = next();
            if (c == '{') {
                at++;
                while (more('}')) {
                    if (!json.members.empty()) expect(',');
                    std::string name = string();
                    expect(':');
                    json.members[name] = value();
                }
            } else if (c == '[') {
                at++;
                while (more(']')) {
                    if (!json.items.empty()) expect(',');
                    json.items.push_back(value());
                }
            } else if (c == '"') {
                json.text = string();
            } else {
                while (at < end && !std::strchr(",]} \n\r\t", *at)) json.text += *at++;
                if (json.text.empty()) fail();
            }
            depth--;
            return json;
        }

        std::string string() {
            expect('"');
            std::string text;
            while (*at != '"') {
                if (at >= end) fail();
                text += *at == '\\' ? escaped() : std::string(1, *at++);
            }
            at++;
            return text;
        }

        std::string escaped() {
            const char c = at[1];
            at += c ? 2 : 1;
            const std::string names = "ntrbf", meanings = "\n\t\r\b\f";
            if (c == 'u') return character();
            const size_t i = names.find(c);
            return std::string(1, i == std::string::npos ? c : meanings[i]);
        }

        // Names and paths only: what lies beyond the first 65536 characters stays two halves.
        std::string character() {
            if (end - at < 4) fail();
            const unsigned code = std::strtoul(std::string(at, 4).c_str(), nullptr, 16);
            at += 4;
            if (code < 0x80) return {(char)code};
            if (code < 0x800) return {(char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F))};
            return {(char)(0xE0 | code >> 12), (char)(0x80 | (code >> 6 & 0x3F)),
                    (char)(0x80 | (code & 0x3F))};
        }
    };
};
