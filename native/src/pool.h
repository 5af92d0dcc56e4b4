// Threads that help a caller through a job: phases one after the other, the chunks of a phase in any order.
//
// Nobody waits for a thread that has not come: a chunk is taken by whoever is there, the caller always is, and a phase is over when its
// chunks are done. So a worker that sleeps, or that the machine gives no time to, costs its help and not the others' time.
#ifndef FOVEAL_NATIVE_POOL_H
#define FOVEAL_NATIVE_POOL_H

#include <atomic>
#include <cstdint>

namespace foveal {

class Job {
public:
    virtual ~Job() = default;
    virtual int phases() const = 0;
    virtual int chunks(int phase) const = 0;  // at least 1, at most kMostChunks
    // `thread`: 0, the caller, to the pool's threads - 1; `is_first`: whether the chunk is this thread's first one of the phase.
    virtual void run(int phase, int chunk, int thread, bool is_first) = 0;
};

constexpr int kMostChunks = 60000;
constexpr int kMostThreads = 64;

// Runs a job on the calling thread alone.
void run_alone(Job &job);

class Pool {
public:
    // Starts the workers; throws std::system_error if that fails.
    Pool(int threads, int spin_us);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int threads() const { return threads_; }

    // Runs a job to its end. If another thread's job is being run, on the calling thread alone.
    void run(Job &job);

    // In a child process no worker of the parent's is left; the next job starts new ones.
    void forget_workers();

private:
    struct Crew;
    void revive();

    const int threads_, spin_us_;
    std::atomic<Crew *> crew_{nullptr};
    std::atomic<bool> busy_{false};
};

}  // namespace foveal
#endif
