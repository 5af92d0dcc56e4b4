// A program made ready to run, and one run of it.
#ifndef FOVEAL_NATIVE_STAGE_H
#define FOVEAL_NATIVE_STAGE_H

#include <atomic>
#include <memory>
#include <vector>

#include "plan.h"
#include "pool.h"

namespace foveal {

// A failure of fv_run: its code, and what happened.
struct Failure {
    fv_failure code;
    std::string what;
};

// The memory of one run, kept for the next one.
struct Workspace {
    explicit Workspace(const Plan &plan, int threads);
    ~Workspace();
    Workspace(const Workspace &) = delete;
    Workspace &operator=(const Workspace &) = delete;

    float *shared;
    float *own(int thread) const { return own_ + thread * own_floats_; }
    std::vector<Group> groups;

private:
    float *own_, *memory_;
    int64_t own_floats_;
};

class Stage {
public:
    // Throws std::invalid_argument, std::bad_alloc.
    Stage(const fv_program &program, const Kernels &kernels, Pool &pool);
    ~Stage();

    // Throws Failure, std::bad_alloc; then nothing was written.
    void run(const fv_call &call);

private:
    static constexpr int kKept = 64;  // workspaces: as many calls at a time find one ready

    Workspace *borrow();
    void give_back(Workspace *workspace);

    const Plan plan_;
    const Kernels &kernels_;
    Pool &pool_;
    bool is_divided_;  // whether any phase is
    std::atomic<Workspace *> kept_[kKept] = {};
};

}  // namespace foveal
#endif
