"""What the package is and needs; tool settings are in pyproject.toml."""

import ast
import platform
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).parent
PACKAGE = "fairseq_rnnprune"

# ve-fairseq has wheels for these machines only; fairseq-fixed has few and is compiled elsewhere.
HAS_WHEEL = (
    "platform_system == 'Linux' and platform_machine == 'x86_64'"
    " and python_version >= '3.11' and python_version < '3.13'"
)
HAS_NO_WHEEL = (
    "platform_system != 'Linux' or platform_machine != 'x86_64'"
    " or python_version < '3.11' or python_version >= '3.13'"
)


def read_version() -> str:
    """Return `__version__` without importing the package, whose requirements may be missing."""
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)
    raise ValueError(f"setup.py: expected __version__ in {PACKAGE}/__init__.py, got none")


def kernels() -> Extension:
    """Return the native kernels: loaded by ctypes, they need no header of Python or torch."""
    folder = Path(PACKAGE, "sparse", "csrc")
    # Apple's Clang has no OpenMP; one thread is used then.
    openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]
    # Python's own flags bring -g, which makes the file large, and -fwrapv, which makes it slow.
    speed = ["-std=c++17", "-O3", "-fno-wrapv", "-g0"]
    # GCC's own headers set off the last two warnings.
    warnings = "-Wall -Wextra -Wno-psabi -Wno-maybe-uninitialized -Wno-uninitialized".split()
    return Extension(
        f"{PACKAGE}.sparse._kernels",
        sources=[str(folder / "kernels.cpp")],
        depends=[str(p.relative_to(ROOT)) for p in sorted((ROOT / folder).glob("*.h"))],
        extra_compile_args=[*speed, *openmp, *warnings],
        extra_link_args=openmp,
        # Without a compiler the package is installed all the same; torch then does the work.
        optional=True,
    )


class BuildKernels(build_ext):
    """Tries again without what a compiler may have in part.

    GCC 11 writes AVX-VNNI in words that the assembler of RHEL 9 does not read; for Clang, OpenMP
    may be a package of its own.
    """

    def build_extension(self, ext: Extension) -> None:
        openmp = ext.extra_link_args
        flags = [flag for flag in ext.extra_compile_args if flag not in openmp]
        attempts = [
            (*parallel, *without)
            for parallel in ((openmp, []) if openmp else ([],))
            for without in ([], ["-DNO_AVX_VNNI"])
        ]
        for attempt in attempts:
            ext.extra_compile_args = [*flags, *attempt]
            ext.extra_link_args = [flag for flag in attempt if flag in openmp]
            try:
                super().build_extension(ext)
            except (CompileError, LinkError):
                if attempt == attempts[-1] or not shutil.which(self.compiler.compiler_so[0]):
                    raise
            else:
                if attempt != attempts[0]:
                    self.warn(f"the kernels were compiled with {' '.join(attempt) or 'no option'}")
                return


setup(
    name=PACKAGE,
    version=read_version(),
    description="fairseq plugin: trains recurrent networks into sparse ones, runs them packed",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    author="the fairseq_rnnprune authors",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    ext_modules=[kernels()],
    cmdclass={"build_ext": BuildKernels},
    python_requires=">=3.10",
    # torch 2.4 is the first with torch.serialization.add_safe_globals.
    install_requires=["torch>=2.4", "numpy>=1.23", "rich>=13", "safetensors>=0.4.5"],
    extras_require={
        # An extra, because the module `fairseq` may come from any distribution that imports.
        "fairseq": [
            f"ve-fairseq==0.12.3; {HAS_WHEEL}",
            f"fairseq-fixed==0.12.3.1; {HAS_NO_WHEEL}",
            "hydra-core<1.4",
            "omegaconf<2.4",
        ],
        "text": ["sentencepiece>=0.1.99", "sacrebleu>=2.0"],
        "speech": [
            "editdistance>=0.6",
            "kaldi-native-fbank>=1.18",
            "sentencepiece>=0.1.99",
            "soundfile>=0.12",
            "soxr>=0.3.4",
        ],
        # Has no wheels: needs a C++ compiler and cmake.
        "kenlm": ["kenlm>=0.3"],
        "plot": ["matplotlib>=3.7"],
        # The first whose interpreter runs with numpy 2.4.
        "triton": ["triton>=3.7; platform_system == 'Linux'"],
        "test": [
            "hypothesis>=6.80",
            "jiwer>=3.0",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "setuptools>=70.1",
            "tensorboardX>=2.6",
        ],
    },
    entry_points={"console_scripts": [f"rnnprune = {PACKAGE}.cli:main"]},
)
