#include "isa.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace foveal {

namespace {

#if defined(__x86_64__) || defined(__i386__)

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Compilers of before 2023 don't know its name: bit 4 of EAX of leaf 7, subleaf 1.
bool has_avxvnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

bool has_neon() { return false; }

#else

bool has_avx2() { return false; }
bool has_avxvnni() { return false; }
bool has_avx512() { return false; }

bool has_neon() {
#if defined(__aarch64__) && defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__aarch64__) && defined(__APPLE__)
    return true;
#else
    return false;
#endif
}

#endif

const Kernels *find(const char *wanted) {
    const Kernels *there[] = {
        has_avx512() ? kernels_avx512() : nullptr,
        has_avxvnni() ? kernels_avxvnni() : nullptr,
        has_avx2() ? kernels_avx2() : nullptr,
        has_neon() ? kernels_neon() : nullptr,
        kernels_plain(),
    };
    for (const Kernels *kernels : there)
        if (kernels && (!wanted || !*wanted || std::strcmp(kernels->name, wanted) == 0)) return kernels;
    return nullptr;
}

}  // namespace

const Kernels *chosen_kernels() {
    static const Kernels *const chosen = find(std::getenv("FOVEAL_NATIVE_ISA"));
    return chosen;
}

}  // namespace foveal
