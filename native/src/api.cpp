#include "api.h"

#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "isa.h"
#include "pool.h"
#include "stage.h"

#define FV_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

thread_local char error_text[512];

void set_error(const char *what) {
    std::strncpy(error_text, what, sizeof error_text - 1);
    error_text[sizeof error_text - 1] = '\0';
}

// Calls `make`; NULL and a text if it throws.
template <class Make>
void *made(Make make) {
    try {
        return make();
    } catch (const std::bad_alloc &) {
        set_error("there is no memory for it");
    } catch (const std::exception &error) {
        set_error(error.what());
    }
    return nullptr;
}

}  // namespace

FV_EXPORT void *fv_pool_open(int32_t threads, int32_t spin_us) {
    return made([&]() -> void * {
        if (threads < 1 || threads > foveal::kMostThreads)
            throw std::invalid_argument("a pool has 1 to " + std::to_string(foveal::kMostThreads) + " threads, got " + std::to_string(threads));
        return new foveal::Pool(threads, spin_us);
    });
}

FV_EXPORT void fv_pool_close(void *pool) { delete (foveal::Pool *)pool; }

FV_EXPORT void *fv_open(void *pool, const fv_program *program) {
    return made([&]() -> void * {
        const foveal::Kernels *kernels = foveal::chosen_kernels();
        if (!kernels) throw std::runtime_error("this machine or this build has no instruction set of the name in FOVEAL_NATIVE_ISA");
        return new foveal::Stage(*program, *kernels, *(foveal::Pool *)pool);
    });
}

FV_EXPORT void fv_close(void *stage) { delete (foveal::Stage *)stage; }

FV_EXPORT int32_t fv_run(void *stage, const fv_call *call) {
    try {
        ((foveal::Stage *)stage)->run(*call);
        return 0;
    } catch (const foveal::Failure &failure) {
        set_error(failure.what.c_str());
        return failure.code;
    } catch (const std::exception &) {
        set_error("there is no memory for it");
        return FV_NO_MEMORY;
    }
}

FV_EXPORT const char *fv_error(void) { return error_text; }

FV_EXPORT const char *fv_isa(void) {
    const foveal::Kernels *kernels = foveal::chosen_kernels();
    return kernels ? kernels->name : "none";
}

FV_EXPORT int32_t fv_abi(void) { return FV_ABI; }

FV_EXPORT int64_t fv_weight_bytes(int32_t format, int32_t k, int32_t n, int32_t block) {
    return foveal::panel_bytes(format, k, block) * ((n + foveal::kPanel - 1) / foveal::kPanel);
}
