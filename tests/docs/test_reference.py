"""What the reference pages are made of has descriptions, and is whole."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

import napari_cryosphere as nc
from napari_cryosphere.cli import app, help_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "docsite"))

from api_pages import PAGES, api_pages, public_names  # noqa: E402
from command_page import command_page, commands  # noqa: E402
from config_page import CONFIG_OF, config_page, fields, job_configs, settings  # noqa: E402

COMMANDS = commands()
MODELS = job_configs() | settings()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_described(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    undescribed = [
        parameter.name for parameter in command.params if not help_of(command, parameter).strip()
    ]
    assert not undescribed


@pytest.mark.parametrize("name", MODELS)
def test_every_field_is_described(name: str) -> None:
    model = MODELS[name]
    assert model.__doc__
    undescribed = [field.name for field in fields(model) if not field.description]
    assert not undescribed


@pytest.mark.parametrize("name", [name for name in COMMANDS if name in CONFIG_OF])
def test_a_command_fills_the_config_that_its_page_names(name: str) -> None:
    """The error of a wrong key lists the keys of the config that the command really fills."""
    command = COMMANDS[name]
    arguments: list[str] = []
    for parameter in command.params:
        if parameter.required:
            flag = [parameter.opts[0]] if parameter.param_type_name == "option" else []
            arguments += [*flag, "nothing.star"]
    result = CliRunner().invoke(app, [*name.split(), *arguments, "--set", "no_such_key=1"])
    assert result.exit_code == 2
    words = set(re.findall(r"\w+", result.output))
    assert set(CONFIG_OF[name].model_fields) <= words, result.output


def test_every_command_with_settings_has_its_config() -> None:
    with_settings = {
        name
        for name, command in COMMANDS.items()
        if any(p.opts == ["--set"] for p in command.params)
    }
    assert with_settings == set(CONFIG_OF)


def test_pages_have_every_command_and_field() -> None:
    page = command_page()
    assert all(f"## `{name}`" in page for name in COMMANDS)
    configs = config_page()
    for name, model in MODELS.items():
        section = configs.split(f"## {name} ")[1].split("\n## ")[0]
        assert all(f"| `{field}` |" in section for field in model.model_fields)


def test_the_interface_is_the_front_door_and_what_packages_export() -> None:
    pages = api_pages()
    assert len(pages) == len(PAGES) + 1
    assert set(public_names()) == set(nc.__all__) - {"__version__"}
    for package in PAGES:
        exported = import_module(f"napari_cryosphere.{package}").__all__
        assert set(public_names(package)) == set(exported)
    entries = [line for text in pages.values() for line in text.splitlines() if ":::" in line]
    assert len(entries) == len(set(entries))
    for entry in entries:
        module, _, name = entry.removeprefix("::: ").rpartition(".")
        assert getattr(import_module(module), name).__doc__
