#include "pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace foveal {

namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Which phase is open, how many chunks it has, and which is taken next, in one word: whoever takes a chunk learns in the same moment
// which phase it is of. Phases are counted through all jobs. `next` may run past `count`, by one for each thread that was too late.
struct Ticket {
    uint64_t word;
    uint32_t phase() const { return (uint32_t)(word >> 32); }
    uint32_t count() const { return (word >> 16) & 0xffff; }
    uint32_t next() const { return word & 0xffff; }
    bool is_open() const { return next() < count(); }
    static uint64_t of(uint32_t phase, uint32_t count) { return (uint64_t)phase << 32 | (uint64_t)count << 16; }
};

// Waits ever less eagerly: others may need this core to get on with what is waited for.
class Patience {
public:
    void wait() {
        if (rounds_ < 4096) {
            pause();
        } else if (rounds_ < 8192) {
            std::this_thread::yield();
        } else {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
        rounds_++;
    }

private:
    int rounds_ = 0;
};

using Clock = std::chrono::steady_clock;

}  // namespace

void run_alone(Job &job) {
    for (int phase = 0; phase < job.phases(); phase++)
        for (int chunk = 0, chunks = job.chunks(phase); chunk < chunks; chunk++) job.run(phase, chunk, 0, chunk == 0);
}

struct Pool::Crew {
    alignas(64) std::atomic<uint64_t> ticket{0};
    alignas(64) std::atomic<uint32_t> done{0};
    alignas(64) std::atomic<uint32_t> jobs{0};  // started so far: what sleepers wait for
    Job *job = nullptr;                         // these two belong to whoever holds a chunk
    uint32_t first_phase = 0;
    std::atomic<int> sleepers{0};
    std::atomic<bool> stop{false};
    std::mutex mutex;
    std::condition_variable called;
    std::vector<std::thread> workers;
    const int spin_us;

    Crew(int count, int spin_us) : spin_us(spin_us) {
        try {
            for (int i = 0; i < count; i++) workers.emplace_back([this, i] { work(i + 1); });
        } catch (...) {
            dismiss();
            throw;
        }
    }

    ~Crew() { dismiss(); }

    void dismiss() {
        stop = true;
        wake();
        for (std::thread &worker : workers) worker.join();
    }

    void start(Job &given) {
        job = &given;
        first_phase = Ticket{ticket.load(std::memory_order_relaxed)}.phase() + 1;
        open(0);
        jobs.fetch_add(1, std::memory_order_seq_cst);
        if (sleepers.load(std::memory_order_seq_cst) > 0) wake();
    }

    void wake() {
        { std::lock_guard<std::mutex> lock(mutex); }
        called.notify_all();
    }

    void open(int phase) {
        const bool is_over = phase == job->phases();
        const uint64_t word = Ticket::of(first_phase + phase, is_over ? 0 : job->chunks(phase));
        ticket.store(word, std::memory_order_release);
    }

    // Takes a chunk and runs it, if there is one. `last` is the phase of this thread's last chunk.
    bool help(int thread, uint32_t *last) {
        if (!Ticket{ticket.load(std::memory_order_acquire)}.is_open()) return false;
        const Ticket mine{ticket.fetch_add(1, std::memory_order_acq_rel)};
        if (!mine.is_open()) return false;
        const int phase = (int)(mine.phase() - first_phase);
        job->run(phase, (int)mine.next(), thread, mine.phase() != *last);
        *last = mine.phase();
        const uint32_t count = mine.count();
        if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
            done.store(0, std::memory_order_relaxed);
            open(phase + 1);
        }
        return true;
    }

    // The caller: until the phase behind the job's last one is reached.
    void lead(uint32_t end) {
        uint32_t last = first_phase - 1;
        Patience patience;
        while (Ticket{ticket.load(std::memory_order_acquire)}.phase() != end) {
            if (help(0, &last))
                patience = Patience();
            else
                patience.wait();
        }
    }

    void work(int thread) {
        uint32_t last = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            const uint32_t seen = jobs.load(std::memory_order_seq_cst);
            watch(thread, &last);
            sleep(seen);
        }
    }

    // Helps until there was nothing to do for a while.
    void watch(int thread, uint32_t *last) {
        Clock::time_point until = Clock::now() + std::chrono::microseconds(spin_us);
        for (int round = 1; !stop.load(std::memory_order_relaxed); round++) {
            if (help(thread, last)) {
                round = 0;
                continue;
            }
            pause();
            if (round % 64 != 0) continue;  // the clock is not free
            const Clock::time_point now = Clock::now();
            if (round == 64)
                until = now + std::chrono::microseconds(spin_us);
            else if (now > until)
                return;
        }
    }

    void sleep(uint32_t seen) {
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        called.wait(lock, [&] { return jobs.load(std::memory_order_seq_cst) != seen || stop; });
        sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
};

namespace {

std::mutex registry_mutex;
std::vector<Pool *> registry;

void lock_registry() { registry_mutex.lock(); }
void unlock_registry() { registry_mutex.unlock(); }
void forget_all_workers() {
    for (Pool *pool : registry) pool->forget_workers();
    registry_mutex.unlock();
}

}  // namespace

Pool::Pool(int threads, int spin_us) : threads_(threads), spin_us_(spin_us) {
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(lock_registry, unlock_registry, forget_all_workers); });
    if (threads_ > 1) crew_ = new Crew(threads_ - 1, spin_us_);
    std::lock_guard<std::mutex> lock(registry_mutex);
    registry.push_back(this);
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(registry_mutex);
        registry.erase(std::find(registry.begin(), registry.end(), this));
    }
    delete crew_.load();
}

// What the parent's threads were doing can't be finished or freed here: their locks may be held. It is left behind.
void Pool::forget_workers() {
    crew_ = nullptr;
    busy_ = false;
}

void Pool::run(Job &job) {
    if (threads_ == 1 || busy_.exchange(true, std::memory_order_acquire)) return run_alone(job);
    if (!crew_) revive();
    if (Crew *crew = crew_) {
        crew->start(job);
        crew->lead(crew->first_phase + (uint32_t)job.phases());
    } else {
        run_alone(job);
    }
    busy_.store(false, std::memory_order_release);
}

// A child process that may have no threads computes alone, and tries again at the next job.
void Pool::revive() {
    try {
        crew_ = new Crew(threads_ - 1, spin_us_);
    } catch (const std::system_error &) {
    }
}

}  // namespace foveal
