"""The recipe for conda-forge and the other files about the project agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML reads the recipe")

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
CONDA_NAMES = {"torch": "pytorch", "pyside6-essentials": "pyside6"}


def _split(requirement: str) -> tuple[str, frozenset[str]]:
    match = re.match(r"\s*([\w.-]+)\s*([^;\[]*)", requirement)
    assert match, requirement
    name = match[1].lower()
    bounds = frozenset(part.strip() for part in match[2].split(",") if part.strip())
    return CONDA_NAMES.get(name, name), bounds


def test_recipe_has_the_requirements_of_the_package() -> None:
    recipe = yaml.safe_load(
        (ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    )
    found = dict(_split(line) for line in recipe["requirements"]["run"])
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gui"]]
    expected = dict(_split(line) for line in wanted)
    assert found.pop("python") == {PROJECT["requires-python"]}
    assert found == expected


def test_classifiers_name_the_versions_and_systems_that_are_tested() -> None:
    workflow = yaml.safe_load(
        (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    )
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    classifiers = " ".join(PROJECT["classifiers"])
    versions = re.findall(r"Python :: (3\.\d+)", classifiers)
    assert versions == matrix["python"]
    systems = {"Linux": "ubuntu", "MacOS": "macos", "Windows": "windows"}
    assert {system for name, system in systems.items() if name in classifiers} == {
        name.split("-")[0] for name in matrix["os"]
    }


def test_citation_names_the_package_and_its_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"].startswith(PROJECT["name"])
    assert citation["license"] == PROJECT["license"]
    assert {author["name"] for author in citation["authors"]} == {
        a["name"] for a in PROJECT["authors"]
    }
