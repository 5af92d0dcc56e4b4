// What an instruction set provides: the inner loops that steps are made of, as a table of functions.
#ifndef FOVEAL_NATIVE_KERNELS_H
#define FOVEAL_NATIVE_KERNELS_H

#include <stdint.h>

#include "api.h"

namespace foveal {

constexpr int kPanel = 16;       // columns of a panel of weights
constexpr int kMostTogether = 8;  // rows that one pass over a panel serves
constexpr int kMostHeadDim = 512;  // columns of a head
constexpr int kKeyBlock = 64;     // keys that are attended to together; blocks begin at multiples of it

inline int rounded_up(int x, int step) { return (x + step - 1) / step * step; }

// fp32 rows: row r starts at data + r * stride.
struct Rows {
    float *data;
    int64_t stride;  // floats
    float *row(int r) const { return data + r * stride; }
};

// Rows rounded to 8 bits, as products read them: q [k / 8][rows][8], and of every block its scale and the zero of its sums,
// [blocks][rows].
struct Rounded {
    int8_t *q;
    float *scale;
    int32_t *zero;
    int rows;
};

struct Product {
    int format, k, n, block, activation, parts;
    float x_scale;
    const uint8_t *weights;
    const float *bias;  // [n] or NULL
    int64_t panel_bytes;
    int padded_k() const { return format == FV_FP32 ? k : rounded_up(k, 8); }
    int block_rows() const { return block && (format == FV_W8 || format == FV_W4) ? block : padded_k(); }
    int blocks() const { return format == FV_FP32 ? 0 : (padded_k() + block_rows() - 1) / block_rows(); }
    // Of one rounded row, in floats.
    int64_t rounded_floats() const { return padded_k() / 4 + 2 * blocks(); }
    int panels() const { return (n + kPanel - 1) / kPanel; }
};

struct Attention {
    int heads, kv_heads, head_dim, width, dtype, window, rotated, pairs;
    float scale, key_scale, value_scale;
    int queries_per_key() const { return heads / kv_heads; }
    int padded_dim() const { return rounded_up(width, kPanel); }
};

// Rows of one slot that stand together in a call.
struct Group {
    int first, count;
    int64_t slot;
    int64_t longest;  // keys that the row which sees most sees the last of
};

struct AttendCall {
    const Attention *attention;
    Rows qkv, angles, out;  // angles: data NULL if there are none
    const int64_t *row_index;
    const fv_cache *keys, *values;
    float *scratch;  // of attend_scratch() floats
};

struct Kernels {
    const char *name;
    // Rounds all rows of `to` as the product wants its input.
    void (*round_rows)(const Product &, Rows x, Rounded to);
    // out[:, panels] = activation(x W + bias) + added, of panels [first, last); `added.data` may be NULL.
    void (*product)(const Product &, Rows x, Rounded rounded, int rows, int first, int last, Rows added, Rows out);
    // Writes the keys and values of one head of a group, then attends to it with the queries that read it.
    void (*attend)(const AttendCall &, const Group &, int kv_head);
    int64_t (*attend_scratch)(const Attention &, int rows);
    void (*norm)(int kind, float eps, const float *gamma, const float *beta, int width, Rows x, Rows added, Rows normed, Rows sum, int rows);
    void (*add)(Rows a, Rows b, Rows c, Rows out, int width, int rows);  // c.data may be NULL
    void (*multiply)(Rows a, Rows b, Rows out, int width, int rows);
    void (*mean)(Rows x, int parts, Rows out, int width, int rows);  // width: of out
    void (*gate)(int activation, Rows x, Rows out, int width, int rows);  // width: of out
    void (*activate)(int activation, Rows x, Rows out, int width, int rows);
    void (*group_attend)(Rows query, Rows pairs, Rows out, int heads, int dim, int parts, float scale, int rows);
};

const Kernels *kernels_avx512();
const Kernels *kernels_avxvnni();
const Kernels *kernels_avx2();
const Kernels *kernels_neon();
const Kernels *kernels_plain();

}  // namespace foveal
#endif
