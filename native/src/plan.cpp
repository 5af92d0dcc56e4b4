#include "plan.h"

#include <algorithm>
#include <stdexcept>

namespace foveal {

namespace {

// Bytes of weights below which a chunk costs more to hand over than to compute, and how many chunks a thread gets: more would balance what
// threads lose to others, and cost 5 % where nobody takes their time (docs/adr/0026).
constexpr int64_t kLeastChunkBytes = 16 << 10;
constexpr int kChunksPerThread = 1;

const char *name_of(int kind) {
    static const char *const names[] = {"load", "embed", "add", "mul", "norm", "product", "attend",
                                        "take", "mean", "repeat", "gated", "angles", "activate", "group_attend", "copy"};
    return kind >= 0 && kind <= FV_COPY ? names[kind] : "unknown";
}

// Where the newest value of a buffer is.
struct Value {
    enum Kind { kUnwritten, kInput, kOwn, kShared } kind = kUnwritten;
    int phase = 0;    // that made it, if it is a thread's own
    int copy = 0;     // of the two shared ones
    int input = kNoPlace;
    Count count = kCallRows;
};

class Planner {
public:
    Planner(const fv_program &program, const Kernels &kernels, int threads)
        : program_(program), kernels_(kernels), threads_(threads), values_(program.n_buffers), own_(program.n_buffers, kNoPlace),
          shared_(2 * (size_t)program.n_buffers, kNoPlace) {}

    Plan run() {
        check_program();
        for (at_ = 0; at_ < program_.n_steps; at_++) add_step(program_.steps[at_]);
        at_ = kNoPlace;
        finish();
        return std::move(plan_);
    }

private:
    [[noreturn]] void refuse(const std::string &what) const {
        if (at_ == kNoPlace) throw std::invalid_argument(what);
        throw std::invalid_argument(
            "step " + std::to_string(at_) + " (" + name_of(program_.steps[at_].kind) + "): " + what);
    }
    void require(bool holds, const char *what) const {
        if (!holds) refuse(what);
    }
    void require_equal(int64_t got, int64_t expected, const char *what) const {
        if (got != expected)
            refuse(std::string(what) + ", got " + std::to_string(got) + ", expected " + std::to_string(expected));
    }

    void check_program() {
        at_ = kNoPlace;
        require(program_.most_rows >= 1 && program_.most_rows <= 1024, "most_rows must be 1 to 1024");
        plan_.most_rows = program_.most_rows;
        plan_.n_caches = program_.n_caches;
        plan_.widths.assign(program_.widths, program_.widths + program_.n_buffers);
        for (int width : plan_.widths) require(width >= 1, "every buffer needs a width of at least 1");
        plan_.inputs.assign(program_.inputs, program_.inputs + program_.n_inputs);
        for (int i = 0; i < program_.n_inputs; i++) {
            const fv_input &input = program_.inputs[i];
            require(input.buffer >= 0 && input.buffer < program_.n_buffers, "an input's buffer is not one");
            require(input.parts >= 1 && plan_.widths[input.buffer] % input.parts == 0, "an input's parts must divide its width");
            Value &value = values_[input.buffer];
            value.kind = Value::kInput;
            value.input = i;
        }
        require(program_.output >= 0 && program_.output < program_.n_buffers, "the output's buffer is not one");
        plan_.output_width = plan_.widths[program_.output];
        plan_.output_parts = program_.output_parts;
        require(
            plan_.output_parts >= 1 && plan_.output_width % plan_.output_parts == 0, "the output's parts must divide its width");
    }

    // ---- places

    Place place(Place::Space space, int buffer, int64_t *offset, int64_t *total) {
        if (*offset == kNoPlace) {
            *offset = *total;
            *total += rounded_up(plan_.widths[buffer] * plan_.most_rows, kPanel);
        }
        Place found;
        found.space = space;
        found.offset = *offset;
        found.stride = plan_.widths[buffer];
        return found;
    }
    Place own_place(int buffer) { return place(Place::kOwn, buffer, &own_[buffer], &plan_.own_floats); }
    Place shared_place(int buffer, int copy) {
        return place(Place::kShared, buffer, &shared_[2 * (size_t)buffer + copy], &plan_.shared_floats);
    }

    int phase_number() const { return (int)plan_.phases.size(); }

    // The rows that a step reads, from where they were written last.
    Place read(int buffer, const char *what = "reads a buffer that is not one") {
        require(buffer >= 0 && buffer < program_.n_buffers, what);
        Value &value = values_[buffer];
        require(value.kind != Value::kUnwritten, "reads a buffer that nothing has written");
        if (value.kind == Value::kInput) {
            require(!plan_.inputs[value.input].is_ids, "reads ids as rows");
            load(buffer, value.input);
        }
        if (value.kind == Value::kOwn && value.phase != phase_number()) publish(buffer, &value);
        return value.kind == Value::kOwn ? own_place(buffer) : shared_place(buffer, value.copy);
    }

    // Inputs stay where they are: a later phase loads them again.
    void load(int buffer, int input) {
        RowStep step;
        step.kind = kLoad;
        step.input = input;
        step.width = plan_.widths[buffer];
        step.out[0] = own_place(buffer);
        open_.row_steps.push_back(step);
        loaded_.push_back(buffer);
        values_[buffer].kind = Value::kOwn;
        values_[buffer].phase = phase_number();
    }

    void publish(int buffer, Value *value) {
        value->copy = 1 - value->copy;
        Publication publication{own_place(buffer), shared_place(buffer, value->copy), plan_.widths[buffer], value->count};
        plan_.phases[value->phase].publications.push_back(publication);
        value->kind = Value::kShared;
    }

    Place write_own(int buffer, Count count) {
        require(buffer >= 0 && buffer < program_.n_buffers, "writes a buffer that is not one");
        forget_load(buffer);
        Value &value = values_[buffer];
        value.kind = Value::kOwn;
        value.phase = phase_number();
        value.count = count;
        return own_place(buffer);
    }

    Place write_shared(int buffer, Count count) {
        require(buffer >= 0 && buffer < program_.n_buffers, "writes a buffer that is not one");
        forget_load(buffer);
        Value &value = values_[buffer];
        value.kind = Value::kShared;
        value.copy = 1 - value.copy;
        value.count = count;
        return shared_place(buffer, value.copy);
    }

    void forget_load(int buffer) { loaded_.erase(std::remove(loaded_.begin(), loaded_.end(), buffer), loaded_.end()); }

    void close_phase() {
        plan_.phases.push_back(std::move(open_));
        open_ = Phase();
        for (int buffer : loaded_) values_[buffer].kind = Value::kInput;
        loaded_.clear();
    }

    // ---- steps

    int width(int buffer) const { return plan_.widths[buffer]; }
    Count count_of(int buffer) const { return values_[buffer].count; }

    Count common_count(const fv_step &step, int operands) const {
        const Count count = count_of(step.in[0]);
        for (int i = 1; i < operands; i++)
            if (step.in[i] >= 0 && count_of(step.in[i]) != count) refuse("mixes rows of the call with logit rows");
        return count;
    }

    void add_step(const fv_step &step) {
        switch (step.kind) {
            case FV_EMBED: return add_embed(step);
            case FV_ADD: return add_elementwise(step, 2, 3);
            case FV_MUL: return add_elementwise(step, 2, 2);
            case FV_ACTIVATE: return add_elementwise(step, 1, 1);
            case FV_NORM: return add_norm(step);
            case FV_MEAN: return add_resized(step, step.n[0], true);
            case FV_REPEAT: return add_resized(step, step.n[0], false);
            case FV_GATED: return add_resized(step, 2, true);
            case FV_TAKE: return add_take(step);
            case FV_ANGLES: return add_angles(step);
            case FV_PRODUCT: return add_product(step);
            case FV_ATTEND: return add_attend(step);
            case FV_GROUP_ATTEND: return add_group_attend(step);
            case FV_COPY: return add_copy(step);
            default: refuse("there is no step of kind " + std::to_string(step.kind));
        }
    }

    void push(RowStep row_step) { open_.row_steps.push_back(std::move(row_step)); }

    RowStep row_step(const fv_step &step, Count count) const {
        RowStep made;
        made.kind = step.kind;
        made.step = step;
        made.count = count;
        return made;
    }

    void add_embed(const fv_step &step) {
        const int ids = step.in[0];
        require(ids >= 0 && ids < program_.n_buffers && values_[ids].kind == Value::kInput, "reads ids that are no input");
        require(plan_.inputs[values_[ids].input].is_ids, "reads rows as ids");
        require(step.n[0] == FV_F32 || step.n[0] == FV_U8 || step.n[0] == FV_F16, "tables are fp32, uint8 or fp16");
        require(step.n[1] >= 1 && step.n[2] >= 1 && step.n[4] >= 1, "a table has no rows or columns, or a row no ids");
        require(step.n[3] == 0 || step.n[4] == 1, "positions are added to one id per row only");
        require(step.data[0] && (step.n[0] != FV_U8 || step.data[1]) && (!step.n[3] || step.data[2]), "a table is missing");
        require_equal(width(ids), step.n[4], "ids per row");
        RowStep made = row_step(step, kCallRows);
        made.input = values_[ids].input;
        made.out[0] = write_own(step.out[0], kCallRows);
        require_equal(width(step.out[0]), (int64_t)step.n[2] * step.n[4], "width of the rows");
        push(made);
    }

    void add_elementwise(const fv_step &step, int least, int most) {
        RowStep made = row_step(step, kCallRows);
        for (int i = 0; i < most; i++)
            if (i < least || step.in[i] >= 0) made.in[i] = read(step.in[i]);
        made.count = common_count(step, most);
        for (int i = 0; i < most; i++)
            if (step.in[i] >= 0) require_equal(width(step.in[i]), width(step.in[0]), "width of what is combined");
        made.out[0] = write_own(step.out[0], made.count);
        require_equal(width(step.out[0]), width(step.in[0]), "width of the result");
        made.width = width(step.out[0]);
        if (step.kind == FV_ACTIVATE) check_activation(step.n[0]);
        push(made);
    }

    void add_norm(const fv_step &step) {
        require(step.n[0] >= FV_LAYER && step.n[0] <= FV_RMS_EPS, "there is no such norm");
        require(step.data[0], "gamma is missing");
        RowStep made = row_step(step, kCallRows);
        made.in[0] = read(step.in[0]);
        if (step.in[1] >= 0) {
            made.in[1] = read(step.in[1]);
            require_equal(width(step.in[1]), width(step.in[0]), "width of what is added");
        }
        made.count = common_count(step, 2);
        if (step.out[1] >= 0) {
            require(step.in[1] >= 0, "a sum of one number is asked for");
            require(step.out[1] != step.out[0], "the sum and its norm are the same buffer");
            made.out[1] = write_own(step.out[1], made.count);
            require_equal(width(step.out[1]), width(step.in[0]), "width of the sum");
        }
        made.out[0] = write_own(step.out[0], made.count);
        require_equal(width(step.out[0]), width(step.in[0]), "width of the result");
        made.parts = std::max(step.n[1], 1);
        require(width(step.out[0]) % made.parts == 0, "parts must divide the width");
        made.width = width(step.out[0]) / made.parts;
        push(made);
    }

    // FV_MEAN, FV_GATED: a row becomes narrower by `factor`; FV_REPEAT: wider.
    void add_resized(const fv_step &step, int factor, bool narrower) {
        require(factor >= 1, "a row has at least one part");
        if (step.kind == FV_GATED) check_activation(step.n[0]);
        RowStep made = row_step(step, kCallRows);
        made.in[0] = read(step.in[0]);
        made.count = count_of(step.in[0]);
        require(factor == 1 || step.in[0] != step.out[0], "writes the buffer that it reads, of another width");
        made.out[0] = write_own(step.out[0], made.count);
        const int64_t in = width(step.in[0]), out = width(step.out[0]);
        require_equal(in * (narrower ? 1 : factor), out * (narrower ? factor : 1), "width of the parts together");
        made.width = (int)std::min(in, out);
        push(made);
    }

    void add_take(const fv_step &step) {
        RowStep made = row_step(step, kLogitRows);
        require(step.in[0] != step.out[0], "rows can't be taken from the buffer that they are put in");
        made.in[0] = read(step.in[0]);
        require(count_of(step.in[0]) == kCallRows, "takes rows of rows that were taken");
        made.out[0] = write_own(step.out[0], kLogitRows);
        require_equal(width(step.out[0]), width(step.in[0]), "width of the result");
        made.width = width(step.out[0]);
        plan_.takes = true;
        push(made);
    }

    void add_angles(const fv_step &step) {
        require(step.data[0], "frequencies are missing");
        RowStep made = row_step(step, kCallRows);
        made.out[0] = write_own(step.out[0], kCallRows);
        made.width = width(step.out[0]);
        require(made.width % 2 == 0, "angles are pairs of a cosine and a sine");
        push(made);
    }

    void add_group_attend(const fv_step &step) {
        const int64_t heads = step.n[0], dim = step.n[1], parts = step.n[2];
        require(heads >= 1 && dim >= 1 && dim <= kMostHeadDim && parts >= 1, "heads, their width or parts are none, or too wide");
        RowStep made = row_step(step, kCallRows);
        made.in[0] = read(step.in[0]);
        made.in[1] = read(step.in[1]);
        made.count = common_count(step, 2);
        require_equal(width(step.in[0]), heads * dim, "width of queries");
        require_equal(width(step.in[1]), 2 * parts * heads * dim, "width of keys and values");
        require(step.out[0] != step.in[1], "writes the keys that it reads");
        made.out[0] = write_own(step.out[0], made.count);
        require_equal(width(step.out[0]), heads * dim, "width of the result");
        push(made);
    }

    // The rest of the buffer has to be where the copy goes.
    void add_copy(const fv_step &step) {
        const int32_t columns = step.n[0], at = step.n[1], to = step.n[2], out = step.out[0];
        RowStep made = row_step(step, kCallRows);
        made.in[0] = read(step.in[0]);
        made.count = count_of(step.in[0]);
        require(out >= 0 && out < program_.n_buffers, "writes a buffer that is not one");
        require(columns >= 1 && at >= 0 && to >= 0, "there are no such columns");
        require(at <= width(step.in[0]) - columns && to <= width(out) - columns, "columns beyond a row's width");
        require(step.in[0] != out, "copies within a buffer");
        const bool is_new = values_[out].kind == Value::kUnwritten || values_[out].count != made.count;
        RowStep rest = row_step(step, made.count);
        rest.kind = is_new ? kClear : kMove;
        rest.width = width(out);
        if (!is_new) rest.in[0] = read(out);
        rest.out[0] = write_own(out, made.count);
        if (is_new || rest.in[0].space == Place::kShared) push(rest);
        made.out[0] = rest.out[0];
        made.width = columns;
        push(made);
    }

    void check_activation(int activation) const {
        require(activation >= FV_NONE && activation <= FV_SILU, "there is no such activation");
    }

    void add_product(const fv_step &step) {
        Product product{};
        product.format = step.n[0];
        product.k = step.n[1];
        product.n = step.n[2];
        product.block = step.n[3];
        product.activation = step.n[4];
        product.parts = std::max(step.n[5], 1);
        product.x_scale = step.f[0];
        product.weights = (const uint8_t *)step.data[0];
        product.bias = (const float *)step.data[1];
        require(product.format >= FV_FP32 && product.format <= FV_W4, "there is no such format");
        require(product.k >= 1 && product.k <= 65536 && product.n >= 1, "K must be 1 to 65536 and N at least 1");
        const bool has_blocks = product.block != 0 && (product.format == FV_W8 || product.format == FV_W4);
        require(!has_blocks || (product.block > 0 && product.block % 8 == 0), "blocks must be multiples of 8 rows");
        require(product.format != FV_INT8 || product.x_scale > 0.0f, "the input's scale must be positive");
        require(product.weights, "weights are missing");
        check_activation(product.activation);
        product.panel_bytes = panel_bytes(product.format, product.k, product.block);
        open_.product = product;
        open_.kind = FV_PRODUCT;
        open_.step = step;
        open_.in = read(step.in[0]);
        require_equal(width(step.in[0]), (int64_t)product.k * product.parts, "width of the input");
        if (step.in[1] >= 0) {
            open_.added = read(step.in[1]);
            require_equal(width(step.in[1]), (int64_t)product.n * product.parts, "width of what is added");
        }
        open_.count = common_count(step, 2);
        open_.out = write_shared(step.out[0], open_.count);
        require_equal(width(step.out[0]), (int64_t)product.n * product.parts, "width of the result");
        const int64_t bytes = product.panel_bytes * product.panels();
        open_.most_chunks = chunks_for(bytes, product.panels());
        if (product.format != FV_FP32)
            plan_.rounded_floats = std::max(plan_.rounded_floats, product.rounded_floats() * plan_.most_rows * product.parts);
        close_phase();
    }

    int chunks_for(int64_t bytes, int units) const {
        const int64_t most = std::min<int64_t>(units, threads_ == 1 ? 1 : threads_ * kChunksPerThread);
        return (int)std::max<int64_t>(1, std::min(most, bytes / kLeastChunkBytes));
    }

    void add_attend(const fv_step &step) {
        Attention a{};
        const int32_t *n = step.n;
        a.heads = n[2], a.kv_heads = n[3], a.head_dim = n[4], a.width = n[5], a.dtype = n[6];
        a.window = n[7], a.rotated = n[8], a.pairs = n[9];
        a.scale = step.f[0], a.key_scale = step.f[1], a.value_scale = step.f[2];
        require(n[0] >= 0 && n[0] < program_.n_caches && n[1] >= 0 && n[1] < program_.n_caches, "a cache is not one");
        require(a.heads >= 1 && a.kv_heads >= 1 && a.heads % a.kv_heads == 0, "heads of keys must divide heads");
        require(a.head_dim >= 1 && a.head_dim <= a.width, "heads are wider than rows of the cache");
        require(a.width <= kMostHeadDim, "rows of a cache have at most 512 columns");
        require(a.dtype == FV_F32 || a.dtype == FV_I8, "caches are fp32 or int8");
        require(a.dtype == FV_F32 || (a.key_scale > 0.0f && a.value_scale > 0.0f), "int8 caches need positive scales");
        require(a.window >= 0, "a window has at least one row");
        require(a.rotated >= 0 && a.rotated <= a.head_dim && a.rotated % 2 == 0, "rotated dimensions are pairs of a head's");
        require(a.pairs == FV_HALVES || a.pairs == FV_NEIGHBOURS, "there are no such pairs");
        open_.attention = a;
        open_.kind = FV_ATTEND;
        open_.step = step;
        open_.in = read(step.in[0]);
        require_equal(width(step.in[0]), (int64_t)(a.heads + 2 * a.kv_heads) * a.head_dim, "width of queries, keys and values");
        if (a.rotated) {
            open_.angles = read(step.in[1], "angles are missing");
            require_equal(width(step.in[1]), a.rotated, "width of the angles");
        }
        require(common_count(step, a.rotated ? 2 : 1) == kCallRows, "attends from logit rows");
        open_.out = write_shared(step.out[0], kCallRows);
        require_equal(width(step.out[0]), (int64_t)a.heads * a.head_dim, "width of the result");
        open_.most_chunks = threads_ == 1 ? 1 : threads_ * kChunksPerThread;
        plan_.scratch_floats = std::max(plan_.scratch_floats, kernels_.attend_scratch(a, plan_.most_rows));
        close_phase();
    }

    void finish() {
        Value &value = values_[program_.output];
        require(value.kind != Value::kUnwritten, "nothing writes the output");
        if (value.kind == Value::kInput) read(program_.output);
        plan_.output_count = value.count;
        if (!open_.row_steps.empty()) {
            loaded_.clear();
            close_phase();
        }
        plan_.output = read(program_.output);
        plan_.own_floats = (plan_.own_floats + 15) / 16 * 16;
        plan_.rounded_floats = (plan_.rounded_floats + 15) / 16 * 16;
        plan_.scratch_floats = (plan_.scratch_floats + 15) / 16 * 16;
    }

    const fv_program &program_;
    const Kernels &kernels_;
    const int threads_;
    Plan plan_;
    Phase open_;
    std::vector<Value> values_;
    std::vector<int64_t> own_, shared_;  // offsets of buffers, kNoPlace until one is needed
    std::vector<int> loaded_;            // inputs that the open phase has loaded
    int at_ = kNoPlace;
};

}  // namespace

int64_t panel_bytes(int format, int k, int block) {
    if (format == FV_FP32) return (int64_t)k * kPanel * 4;
    const int64_t padded = rounded_up(k, 8), rows = format == FV_INT8 || block == 0 ? padded : block;
    const int64_t integers = padded * kPanel / (format == FV_W4 ? 2 : 1);
    return (padded + rows - 1) / rows * 64 + integers;
}

Plan plan_of(const fv_program &program, const Kernels &kernels, int threads) {
    return Planner(program, kernels, threads).run();
}

}  // namespace foveal
