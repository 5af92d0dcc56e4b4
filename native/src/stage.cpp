#include "stage.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <string>

namespace foveal {

namespace {

constexpr int64_t kLeastAttendBytes = 16 << 10;  // of keys and values below which they are not divided further

float from_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 0) {
        const float small = (float)fraction * 5.9604645e-8f;  // 2^-24
        return sign ? -small : small;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}

[[noreturn]] void fail(fv_failure code, const std::string &what) { throw Failure{code, what}; }

// Of rows in the order in which they stand in a call.
void group_rows(const fv_call &call, std::vector<Group> *groups) {
    groups->clear();
    for (int r = 0; r < call.rows; r++) {
        const int64_t slot = call.slot ? call.slot[r] : 0, keys = call.row_index[r] + 1;
        if (!groups->empty() && groups->back().slot == slot) {
            groups->back().count++;
            groups->back().longest = std::max(groups->back().longest, keys);
            continue;
        }
        for (const Group &group : *groups)
            if (group.slot == slot) fail(FV_BAD_SLOT, "rows of slot " + std::to_string(slot) + " stand apart; put them together");
        groups->push_back({r, 1, slot, keys});
    }
}

void check_call(const Plan &plan, const fv_call &call) {
    if (call.rows < 1 || call.rows > plan.most_rows)
        fail(FV_BAD_ROWS, "a call has 1 to " + std::to_string(plan.most_rows) + " rows, got " + std::to_string(call.rows));
    if (plan.takes) {
        if (call.logit_count < 0 || call.logit_count > plan.most_rows)
            fail(FV_BAD_ROWS, "0 to " + std::to_string(plan.most_rows) + " logit rows, got " + std::to_string(call.logit_count));
        for (int i = 0; i < call.logit_count; i++)
            if (call.logit_rows[i] < 0 || call.logit_rows[i] >= call.rows)
                fail(FV_BAD_INDEX, "logit row " + std::to_string(call.logit_rows[i]) + " of " + std::to_string(call.rows) + " rows");
    }
    for (int r = 0; r < call.rows; r++) {
        for (int c = 0; c < plan.n_caches; c++)
            if (call.row_index[r] < 0 || call.row_index[r] >= call.caches[c].rows)
                fail(FV_BAD_INDEX, "row index " + std::to_string(call.row_index[r]) + " in a cache of " +
                                       std::to_string(call.caches[c].rows) + " rows");
        if (call.slot && call.slot[r] < 0) fail(FV_BAD_SLOT, "slot " + std::to_string(call.slot[r]));
    }
}

void check_embed(const RowStep &step, const fv_call &call) {
    const fv_rows &ids = call.inputs[step.input];
    const int64_t vocabulary = step.step.n[1], positions = step.step.n[3];
    for (int r = 0; r < call.rows; r++) {
        for (int i = 0; i < step.step.n[4]; i++) {
            int64_t id;
            std::memcpy(&id, (const char *)ids.data + r * ids.row_bytes + i * ids.part_bytes, sizeof id);
            if (id < 0 || id >= vocabulary)
                fail(FV_BAD_ID, "id " + std::to_string(id) + " of a vocabulary of " + std::to_string(vocabulary));
        }
        if (positions && (call.row_index[r] < 0 || call.row_index[r] >= positions))
            fail(FV_BAD_INDEX, "row index " + std::to_string(call.row_index[r]) + " of " + std::to_string(positions) + " positions");
    }
}

// One run: what its threads share.
class Run : public Job {
public:
    Run(const Plan &plan, const Kernels &kernels, const fv_call &call, Workspace &workspace)
        : plan_(plan), kernels_(kernels), call_(call), workspace_(workspace) {
        for (const Phase &phase : plan_.phases) has_attention_ |= phase.kind == FV_ATTEND;
        if (has_attention_) group_rows(call_, &workspace_.groups);
        for (const Phase &phase : plan_.phases)
            for (const RowStep &step : phase.row_steps)
                if (step.kind == FV_EMBED) check_embed(step, call_);
    }

    int phases() const override { return (int)plan_.phases.size(); }

    int chunks(int number) const override {
        const Phase &phase = plan_.phases[number];
        if (phase.kind != FV_ATTEND) return count(phase.count) ? phase.most_chunks : 1;
        const Attention &a = phase.attention;
        int64_t bytes = 0;
        for (const Group &group : workspace_.groups) bytes += group.longest * group.count;
        bytes *= (int64_t)2 * a.kv_heads * a.width * (a.dtype == FV_I8 ? 1 : 4);
        return (int)std::max<int64_t>(1, std::min<int64_t>({phase.most_chunks, units(a), bytes / kLeastAttendBytes}));
    }

    void run(int number, int chunk, int thread, bool is_first) override {
        const Phase &phase = plan_.phases[number];
        if (is_first) prepare(phase, thread);
        if (chunk == 0)
            for (const Publication &publication : phase.publications) publish(publication, thread);
        if (count(phase.count) == 0) return;
        if (phase.kind == FV_PRODUCT) multiply(phase, chunk, thread);
        if (phase.kind == FV_ATTEND) attend(phase, chunk, chunks(number), thread);
    }

    void copy_output() const {
        const Rows rows = at(plan_.output, 0);
        const int part = plan_.output_width / plan_.output_parts;
        for (int r = 0; r < count(plan_.output_count); r++)
            for (int p = 0; p < plan_.output_parts; p++)
                std::memcpy((char *)call_.output.data + r * call_.output.row_bytes + p * call_.output.part_bytes,
                            rows.row(r) + p * part, part * sizeof(float));
    }

private:
    int count(Count of) const { return of == kLogitRows ? call_.logit_count : call_.rows; }
    int units(const Attention &a) const { return (int)workspace_.groups.size() * a.kv_heads; }

    Rows at(const Place &place, int thread) const {
        if (place.space == Place::kNone) return {nullptr, 0};
        float *base = place.space == Place::kOwn ? workspace_.own(thread) : workspace_.shared;
        return {base + place.offset, place.stride};
    }

    // The rows of a product: parts lie one behind the other, as rows do.
    int rows_of(const Phase &phase) const { return count(phase.count) * phase.product.parts; }
    Rows parts_of(const Place &place, int width, int thread) const { return {at(place, thread).data, width}; }

    // A product's rounded input, behind the buffers of a thread.
    Rounded rounded(const Phase &phase, int thread) const {
        const Product &product = phase.product;
        const int rows = rows_of(phase);
        int8_t *q = (int8_t *)(workspace_.own(thread) + plan_.own_floats);
        float *scale = (float *)(q + (int64_t)product.padded_k() * rows);
        return {q, scale, (int32_t *)(scale + (int64_t)product.blocks() * rows), rows};
    }

    void prepare(const Phase &phase, int thread) const {
        for (const RowStep &step : phase.row_steps) run_row_step(step, thread);
        if (phase.kind == FV_PRODUCT && phase.product.format != FV_FP32)
            kernels_.round_rows(phase.product, parts_of(phase.in, phase.product.k, thread), rounded(phase, thread));
    }

    void publish(const Publication &publication, int thread) const {
        const Rows from = at(publication.from, thread), to = at(publication.to, thread);
        for (int r = 0; r < count(publication.count); r++)
            std::memcpy(to.row(r), from.row(r), publication.width * sizeof(float));
    }

    void multiply(const Phase &phase, int chunk, int thread) const {
        const Product &product = phase.product;
        const int panels = product.panels(), chunks = phase.most_chunks;
        const int first = (int)((int64_t)panels * chunk / chunks), last = (int)((int64_t)panels * (chunk + 1) / chunks);
        const Rounded x = product.format == FV_FP32 ? Rounded{} : rounded(phase, thread);
        const Rows added = parts_of(phase.added, product.n, thread), out = parts_of(phase.out, product.n, thread);
        kernels_.product(product, parts_of(phase.in, product.k, thread), x, rows_of(phase), first, last, added, out);
    }

    void attend(const Phase &phase, int chunk, int chunks, int thread) const {
        const Attention &a = phase.attention;
        AttendCall call{};
        call.attention = &a;
        call.qkv = at(phase.in, thread);
        call.angles = at(phase.angles, thread);
        call.out = at(phase.out, thread);
        call.row_index = call_.row_index;
        call.keys = &call_.caches[phase.step.n[0]];
        call.values = &call_.caches[phase.step.n[1]];
        call.scratch = workspace_.own(thread) + plan_.own_floats + plan_.rounded_floats;
        const int all = units(a);
        for (int unit = (int)((int64_t)all * chunk / chunks); unit < (int)((int64_t)all * (chunk + 1) / chunks); unit++)
            kernels_.attend(call, workspace_.groups[unit / a.kv_heads], unit % a.kv_heads);
    }

    // ---- row steps

    void run_row_step(const RowStep &step, int thread) const {
        const Rows a = at(step.in[0], thread), b = at(step.in[1], thread), c = at(step.in[2], thread), out = at(step.out[0], thread);
        const int rows = count(step.count), width = step.width;
        const fv_step &given = step.step;
        switch (step.kind) {
            case kLoad: return load(step, out);
            case FV_EMBED: return embed(step, out);
            case FV_ADD: return kernels_.add(a, b, c, out, width, rows);
            case FV_MUL: return kernels_.multiply(a, b, out, width, rows);
            case FV_NORM: {
                const Rows sum = step.out[1].space == Place::kNone ? out : at(step.out[1], thread);
                const float *gamma = (const float *)given.data[0], *beta = (const float *)given.data[1];
                const auto parts = [&](Rows whole) { return Rows{whole.data, width}; };
                return kernels_.norm(
                    given.n[0], given.f[0], gamma, beta, width, parts(a), parts(b), parts(out), parts(sum), rows * step.parts);
            }
            case FV_TAKE: return take(a, out, width);
            case FV_MEAN: return kernels_.mean(a, given.n[0], out, width, rows);
            case FV_REPEAT: return repeat(a, out, width, given.n[0], rows);
            case FV_GATED: return kernels_.gate(given.n[0], a, out, width, rows);
            case FV_ANGLES: return angles((const float *)given.data[0], out, width / 2);
            case FV_ACTIVATE: return kernels_.activate(given.n[0], a, out, width, rows);
            case FV_GROUP_ATTEND:
                return kernels_.group_attend(a, b, out, given.n[0], given.n[1], given.n[2], given.f[0], rows);
            case FV_COPY: return copy(a, given.n[1], out, given.n[2], width, rows);
            case kMove: return copy(a, 0, out, 0, width, rows);
            case kClear: std::memset(out.data, 0, (int64_t)rows * width * sizeof(float));
        }
    }

    void load(const RowStep &step, Rows out) const {
        const fv_rows &from = call_.inputs[step.input];
        const int parts = plan_.inputs[step.input].parts, part = step.width / parts;
        for (int r = 0; r < call_.rows; r++)
            for (int p = 0; p < parts; p++)
                std::memcpy(out.row(r) + p * part, (const char *)from.data + r * from.row_bytes + p * from.part_bytes,
                            part * sizeof(float));
    }

    void embed(const RowStep &step, Rows out) const {
        const int dtype = step.step.n[0], width = step.step.n[2], ids = step.step.n[4];
        const fv_rows &from = call_.inputs[step.input];
        for (int r = 0; r < call_.rows; r++) {
            for (int i = 0; i < ids; i++) {
                int64_t id;
                std::memcpy(&id, (const char *)from.data + r * from.row_bytes + i * from.part_bytes, sizeof id);
                look_up(dtype, step.step, id, width, out.row(r) + (int64_t)i * width);
            }
            if (step.step.n[3]) {
                const float *position = (const float *)step.step.data[2] + call_.row_index[r] * width;
                for (int i = 0; i < width; i++) out.row(r)[i] += position[i];
            }
        }
    }

    static void look_up(int dtype, const fv_step &step, int64_t id, int width, float *to) {
        if (dtype == FV_F32) {
            std::memcpy(to, (const float *)step.data[0] + id * width, width * sizeof(float));
        } else if (dtype == FV_U8) {
            const uint8_t *row = (const uint8_t *)step.data[0] + id * width;
            const float scale = ((const float *)step.data[1])[id];
            for (int i = 0; i < width; i++) to[i] = ((float)row[i] - 128.0f) * scale;
        } else {
            const uint16_t *row = (const uint16_t *)step.data[0] + id * width;
            for (int i = 0; i < width; i++) to[i] = from_half(row[i]);
        }
    }

    void take(Rows x, Rows out, int width) const {
        for (int i = 0; i < call_.logit_count; i++) std::memcpy(out.row(i), x.row((int)call_.logit_rows[i]), width * sizeof(float));
    }

    static void copy(Rows x, int at, Rows out, int to, int width, int rows) {
        for (int r = 0; r < rows; r++) std::memcpy(out.row(r) + to, x.row(r) + at, width * sizeof(float));
    }

    static void repeat(Rows x, Rows out, int width, int times, int rows) {
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < times; i++) std::memcpy(out.row(r) + (int64_t)i * width, x.row(r), width * sizeof(float));
    }

    void angles(const float *frequencies, Rows out, int pairs) const {
        for (int r = 0; r < call_.rows; r++) {
            for (int i = 0; i < pairs; i++) {
                const float angle = (float)call_.row_index[r] * frequencies[i];
                out.row(r)[i] = std::cos(angle);
                out.row(r)[pairs + i] = std::sin(angle);
            }
        }
    }

    const Plan &plan_;
    const Kernels &kernels_;
    const fv_call &call_;
    Workspace &workspace_;
    bool has_attention_ = false;
};

}  // namespace

Workspace::Workspace(const Plan &plan, int threads)
    : own_floats_(plan.own_floats + plan.rounded_floats + plan.scratch_floats + 16) {
    groups.reserve(plan.most_rows);
    own_floats_ = (own_floats_ + 31) / 32 * 32;  // no two threads write to a pair of cache lines
    const int64_t floats = (plan.shared_floats + 31) / 32 * 32 + threads * own_floats_;
    memory_ = (float *)::operator new(floats * sizeof(float), std::align_val_t(128));
    std::memset(memory_, 0, floats * sizeof(float));
    shared = memory_;
    own_ = memory_ + (plan.shared_floats + 31) / 32 * 32;
}

Workspace::~Workspace() { ::operator delete(memory_, std::align_val_t(128)); }

Stage::Stage(const fv_program &program, const Kernels &kernels, Pool &pool)
    : plan_(plan_of(program, kernels, pool.threads())), kernels_(kernels), pool_(pool), is_divided_(false) {
    for (const Phase &phase : plan_.phases) is_divided_ |= phase.kind == FV_PRODUCT && phase.most_chunks > 1;
    kept_[0] = new Workspace(plan_, pool_.threads());
}

Stage::~Stage() {
    for (std::atomic<Workspace *> &kept : kept_) delete kept.load();
}

// Without a lock, so that a child process that was forked meanwhile never finds one held.
Workspace *Stage::borrow() {
    for (std::atomic<Workspace *> &kept : kept_)
        if (kept.load(std::memory_order_relaxed))
            if (Workspace *found = kept.exchange(nullptr, std::memory_order_acquire)) return found;
    return new Workspace(plan_, pool_.threads());
}

void Stage::give_back(Workspace *workspace) {
    for (std::atomic<Workspace *> &kept : kept_) {
        Workspace *none = nullptr;
        if (kept.compare_exchange_strong(none, workspace, std::memory_order_release, std::memory_order_relaxed)) return;
    }
    delete workspace;
}

void Stage::run(const fv_call &call) {
    check_call(plan_, call);
    struct Loan {
        Stage &stage;
        Workspace *workspace;
        ~Loan() { stage.give_back(workspace); }
    } loan{*this, borrow()};
    Run run(plan_, kernels_, call, *loan.workspace);
    if (is_divided_)
        pool_.run(run);
    else
        run_alone(run);
    run.copy_output();
}

}  // namespace foveal
