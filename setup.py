"""The packages, and plans that travel inside of one; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

# These stand at the top for people and travel inside the package.
DATA = {f"dmlray.{name}": name for name in ("experiments", "searches", "benchmark_plans")}

setup(
    packages=[*find_packages(include=["dmlray", "dmlray.*"]), *DATA],
    package_dir=DATA,
    package_data={
        "dmlray": ["py.typed"],
        "dmlray.reporting": ["html/*.html", "html/*.js"],
        **{name: ["*.yaml"] for name in DATA},
    },
)
