// The C ABI of foveal's native steps: a stage is a short list of fused steps over rows of fp32, run for a few rows at a time.
//
// All structs are plain and naturally aligned, for ctypes. Memory that is handed over (weights, caches, rows) stays the caller's and
// must outlive the stage (weights) or the call (everything else). Nothing here throws; errors come back as codes, with a text.
#ifndef FOVEAL_NATIVE_API_H
#define FOVEAL_NATIVE_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FV_ABI 1

// Of every step: `in` and `out` are indices of buffers, -1 where there is none. All buffers hold fp32 rows [rows, width], apart from
// those that `embed` reads: int64 ids [rows, ids per row]. A step may write the buffer that it reads.
typedef struct fv_step {
    int32_t kind;  // FV_EMBED ...
    int32_t in[4];
    int32_t out[2];
    int32_t n[12];
    float f[6];
    const void *data[8];
} fv_step;

enum fv_kind {
    // in: ids; out: rows [D ids] = table[id] (+ positions[row_index], with one id per row).
    // n: table dtype, V, D, rows of positions (0: none), ids per row.  data: table [V, D], scales fp32 [V] (of uint8), positions fp32
    // uint8 tables stand around 128: (u - 128) * scale
    FV_EMBED = 1,
    // in: a, b, (c); out: their sum, in this order
    FV_ADD = 2,
    // in: a, b; out: their product, element by element
    FV_MUL = 3,
    // in: x, (added); out: normed, (sum): where `added` is given, x + added is normed, and stored in `sum` if there is one.
    // n: norm kind, parts: each [D] of a row [parts D] is normed by itself.  f: eps.  data: gamma [D], beta [D] or NULL
    FV_NORM = 4,
    // in: x, (added); out: y [N] = activation(x W + bias) + added; `out` may be `added`'s buffer.
    // n: format, K, N, block (w8, w4: rows of a block, 0: all), activation, parts: a row [parts K] becomes [parts N], part by part.
    // f: scale of x (int8).  data: weights (layouts.md), bias fp32 [N] or NULL
    FV_PRODUCT = 5,
    // in: qkv [(H + 2 Hkv) D], (angles of FV_ANGLES); out: [H D].
    // n: key cache, value cache, H, Hkv, D, width of a cache row (>= D; the rest is written as zeros), cache dtype, window (0: none; the row
    //    itself counts), rotated dimensions (0: none), rotary pairs.  f: scale, key scale, value scale (int8: x = stored * scale)
    // All rows' keys and values are written first, at their row index; then every row attends to rows [0, its index] of its slot.
    FV_ATTEND = 6,
    // in: x of the call's rows; out: its rows `logit_rows`. What is made of these has as many rows
    FV_TAKE = 7,
    // in: x [parts D]; out: [D], the mean of the parts.  n: parts
    FV_MEAN = 8,
    // in: x [D]; out: [times D].  n: times
    FV_REPEAT = 9,
    // in: x [2 F]; out: [F] = activation(x[:F]) * x[F:] (SwiGLU: silu).  n: activation
    FV_GATED = 10,
    // out: [dims] = cos(row_index * frequency) [dims / 2], then sin.  data: frequencies fp32 [dims / 2]
    FV_ANGLES = 11,
    // in: x; out: activation(x).  n: activation
    FV_ACTIVATE = 12,
    // in: query [H D], keys and values [parts][2][H D]; out: [H D], what the query finds among the row's own parts.
    // n: H, D, parts.  f: scale
    FV_GROUP_ATTEND = 13,
    // in: x; out: y; y[to : to + width] = x[at : at + width], the rest of y stays (zeros at first).  n: width, at, to
    FV_COPY = 14,
};

enum fv_format { FV_FP32 = 0, FV_INT8 = 1, FV_W8 = 2, FV_W4 = 3 };
enum fv_activation { FV_NONE = 0, FV_RELU = 1, FV_GELU = 2, FV_GELU_TANH = 3, FV_SILU = 4 };
// layer: mean and variance; rms: x / max(rms, eps); rms_eps: x / sqrt(mean(x^2) + eps)
enum fv_norm { FV_LAYER = 0, FV_RMS = 1, FV_RMS_EPS = 2 };
enum fv_dtype { FV_F32 = 0, FV_I8 = 1, FV_U8 = 2, FV_F16 = 3 };  // caches: F32, I8; tables: F32, U8, F16
// i and i + dims / 2 are rotated together; or 2i and 2i + 1, which are put where i and i + dims / 2 stand: so keys stand in the cache
enum fv_pairs { FV_HALVES = 0, FV_NEIGHBOURS = 1 };

typedef struct fv_input {
    int32_t buffer;
    int32_t is_ids;
    int32_t parts;  // of a row, each width / parts long: rows that a window takes together; 1 if unsure
} fv_input;

typedef struct fv_program {
    const fv_step *steps;
    int32_t n_steps;
    int32_t n_buffers;
    const int32_t *widths;  // [n_buffers]; of ids: how many per row
    const fv_input *inputs;
    int32_t n_inputs;
    int32_t n_caches;
    int32_t output;        // buffer
    int32_t output_parts;  // as fv_input.parts
    int32_t most_rows;
    int32_t reserved;
} fv_program;

// Rows in the caller's memory: part p of row r starts at data + r * row_bytes + p * part_bytes.
typedef struct fv_rows {
    void *data;
    int64_t row_bytes;
    int64_t part_bytes;
} fv_rows;

// [slots, heads, rows, width]: row i of head h of slot s starts at data + s * slot_bytes + h * head_bytes + i * (bytes of a row).
typedef struct fv_cache {
    void *data;
    int64_t slot_bytes;
    int64_t head_bytes;
    int64_t rows;
} fv_cache;

typedef struct fv_call {
    int32_t rows;         // 1 .. most_rows
    int32_t logit_count;  // how many `logit_rows`, 0 .. most_rows; read by programs with FV_TAKE
    const int64_t *row_index;   // [rows] place of each row in its sequence: where its key is written
    const int32_t *slot;        // [rows] which slot of the caches it belongs to; NULL: all to slot 0
    const int64_t *logit_rows;  // [logit_count] in 0 .. rows - 1
    const fv_rows *inputs;      // [n_inputs]
    const fv_cache *caches;     // [n_caches]
    fv_rows output;             // as many rows as the output buffer has: `rows`, or `logit_count`
} fv_call;

// A pool of `threads` - 1 workers beside the callers' own threads; 1: none. Idle workers watch for work for `spin_us`, then sleep.
// Returns NULL if there is no memory. Close it after the stages that use it.
void *fv_pool_open(int32_t threads, int32_t spin_us);
void fv_pool_close(void *pool);

// Checks a program and prepares memory for it; the steps are copied, the weights are not. NULL: fv_error() says why not.
void *fv_open(void *pool, const fv_program *program);
void fv_close(void *stage);

// Runs the stage. Any thread, also several at a time on one stage, as long as they don't share caches' rows or outputs.
// 0, or a code of fv_failure with a text in fv_error(); after a failure nothing was written.
int32_t fv_run(void *stage, const fv_call *call);

enum fv_failure { FV_BAD_ROWS = 1, FV_BAD_INDEX = 2, FV_BAD_ID = 3, FV_NO_MEMORY = 4, FV_BAD_SLOT = 5 };

// What went wrong in the last call of this thread that failed.
const char *fv_error(void);

// "avx512", "avxvnni", "avx2", "neon" or "plain": what this process computes with. The environment variable FOVEAL_NATIVE_ISA forces
// one of those that this machine has, if set before the library's first use; of another one fv_open says that it is not there.
const char *fv_isa(void);
int32_t fv_abi(void);

// For tests and measurements: the size in bytes of packed weights, and exactly what the activations compute.
int64_t fv_weight_bytes(int32_t format, int32_t k, int32_t n, int32_t block);

#ifdef __cplusplus
}
#endif
#endif
