"""Build studperf from settings.ini, the only place where metadata and dependencies are written."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(HERE / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


def requirements(key: str) -> list[str]:
    """The space-separated requirements under `key`; a marker follows its requirement after a semicolon."""
    return settings[key].split()


SUFFIX = "_requirements"
extras = {key.removesuffix(SUFFIX): requirements(key) for key in settings if key.endswith(SUFFIX)}
run_extras = [extra for extra in extras if extra != "dev"]
extras["dev"] += sorted({need for extra in run_extras for need in extras[extra]})

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="Apache-2.0",
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    install_requires=requirements("requirements"),
    extras_require=extras,
    packages=find_packages(include=["studperf", "studperf.*"]),
    package_data={"studperf": ["py.typed", "data/*", "data/app/*", "data/production/*", "data/jupyter/voila/templates/studperf/*"]},
    entry_points={"console_scripts": ["studperf=studperf.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
