"""The C core: one extension in the stable ABI. Everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

sources = sorted(str(p) for p in Path("native").glob("*.c"))
headers = sorted(str(p) for p in Path("native").glob("*.h"))

COMPILE_FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fvisibility=hidden",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-cast-function-type",
    "-Wno-missing-field-initializers",
]

setup(
    ext_modules=[
        Extension(
            "nahanni_compute._native",
            sources=sources,
            depends=headers,
            include_dirs=["native"],
            define_macros=[("Py_LIMITED_API", "0x030b0000"), ("_GNU_SOURCE", None)],
            extra_compile_args=COMPILE_FLAGS,
            extra_link_args=["-pthread"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
