"""Builds one shared library out of src/*.cpp; each kernels_*.cpp gets the compiler flags of its instruction set."""

from __future__ import annotations

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("src")
LIBRARY = "foveal_native.libfoveal_native"
# Nothing is built for the machine that builds: the library picks its kernels where it runs. Fused multiplications are written
# out, so that a row is rounded alike in every kernel.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
]
X86 = {
    # GCC 12 warns of its own header (its bug 105593).
    "kernels_avx512": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mavx512vnni",
        "-mavx2",
        "-mfma",
        "-Wno-maybe-uninitialized",
    ],
    "kernels_avxvnni": ["-mavx2", "-mfma", "-mavxvnni"],
    "kernels_avx2": ["-mavx2", "-mfma"],
}
ARM = {"kernels_neon": ["-march=armv8.2-a+dotprod"]}
OF_MACHINE = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}.get(platform.machine(), {})


class BuildLibrary(build_ext):
    """A library without Python's API in it: one file for all versions of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        objects: list[str] = []
        for source in ext.sources:
            flags = FLAGS + OF_MACHINE.get(Path(source).stem, [])
            objects += self.compiler.compile([source], output_dir=self.build_temp, extra_postargs=flags, depends=ext.depends)
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, target, extra_postargs=["-pthread"], target_lang="c++")


class PlatformWheel(bdist_wheel):
    """For any Python on this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            LIBRARY,
            sources=sorted(str(path) for path in SOURCES.glob("*.cpp")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
