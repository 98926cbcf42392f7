"""The plugin's manifest, and what importing the package costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import entry_points, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path

import pytest

npe2 = pytest.importorskip("npe2", reason="npe2 (extra: test) reads the manifest")

DISTRIBUTION = "napari-cryosphere"
HEAVY = {"PySide6", "e3nn", "healpy", "napari", "qtpy", "torch"}
COMMANDS = [
    command.python_name
    for command in npe2.PluginManifest.from_distribution(DISTRIBUTION).contributions.commands or []
]


@pytest.fixture(scope="module")
def manifest() -> npe2.PluginManifest:
    return npe2.PluginManifest.from_distribution(DISTRIBUTION)


def test_manifest_names_the_distribution(manifest: npe2.PluginManifest) -> None:
    assert manifest.name == DISTRIBUTION
    assert manifest.package_version == version(DISTRIBUTION)


def test_installed_manifest_is_the_one_at_the_top_level(manifest: npe2.PluginManifest) -> None:
    top_level = Path(__file__).resolve().parents[2] / "napari.yaml"
    assert manifest.contributions == npe2.PluginManifest.from_file(top_level).contributions


def test_manifest_contributes_what_the_plugin_promises(manifest: npe2.PluginManifest) -> None:
    contributions = manifest.contributions
    (reader,) = contributions.readers or []
    assert set(reader.filename_patterns) >= {"*.star", "*.cs", "*.csg", "*.mrcs"}
    assert set(reader.filename_patterns) >= {"*.mrc", "*.map.gz", "*.ccp4", "*.ccp4.bz2"}
    samples = [sample.key for sample in contributions.sample_data or []]
    assert samples == ["simulated_particles", "cesped_test", "preferred_views"]
    assert {"CryoSphere", "CryoSphere maps"} <= {
        widget.display_name for widget in contributions.widgets or []
    }
    written = [
        extension
        for writer in contributions.writers or []
        for extension in writer.filename_extensions
    ]
    assert written == [".star", ".cs", ".mrc"]


def test_every_contribution_has_its_command(manifest: npe2.PluginManifest) -> None:
    known = {command.id for command in manifest.contributions.commands or []}
    parts = [
        manifest.contributions.readers,
        manifest.contributions.sample_data,
        manifest.contributions.widgets,
        manifest.contributions.writers,
        *(manifest.contributions.menus or {}).values(),
    ]
    contributed = {contribution.command for part in parts for contribution in part or []}
    assert contributed <= known
    only_in_the_palette = {
        "keep_selected",
        "next_uncertain",
        "predict_poses",
        "previous_uncertain",
        "reconstruct",
        "reject_selected",
        "select_shown",
        "undo_choice",
        "subtract_maps",
    }
    assert known - contributed == {f"{DISTRIBUTION}.{name}" for name in only_in_the_palette}


@pytest.mark.parametrize("python_name", COMMANDS)
def test_command_resolves(python_name: str) -> None:
    pytest.importorskip("napari", reason="napari (extra: gui) runs the commands")
    from npe2.manifest.utils import import_python_name

    assert callable(import_python_name(python_name))


@pytest.mark.parametrize("module", ["napari_cryosphere", "napari_cryosphere.cli"])
def test_import_stays_light(module: str) -> None:
    """`napari-cryosphere --help` and napari's start must not wait for torch."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("job", ["configs", "fsc", "reconstruct", "postprocess", "info"])
def test_jobs_import_what_they_need(job: str) -> None:
    """A command that neither trains nor predicts does not wait seconds for what those need."""
    code = f"import sys, napari_cryosphere.jobs.{job}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"torch", "healpy", "matplotlib"}.isdisjoint(done.stdout.split())


def test_console_script_is_the_command_line() -> None:
    (script,) = entry_points(group="console_scripts", name=DISTRIBUTION)
    assert script.value == "napari_cryosphere.__main__:main"
    assert callable(script.load())


def test_package_is_typed() -> None:
    spec = find_spec("napari_cryosphere")
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()


def test_every_import_is_declared() -> None:
    """Nothing is imported that only some other package's dependencies happen to bring."""
    spec = find_spec("napari_cryosphere")
    assert spec is not None
    assert spec.origin is not None
    declared = {_plain(re.split(r"[^\w.-]", line)[0]) for line in requires(DISTRIBUTION) or []}
    distributions = packages_distributions()
    undeclared = {}
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        for name in (
            _imported(path) - sys.stdlib_module_names - {"napari_cryosphere", "astropy_healpix"}
        ):
            if declared.isdisjoint(_plain(found) for found in distributions.get(name, [name])):
                undeclared.setdefault(name, path.name)
    assert undeclared == {}


def _plain(distribution: str) -> str:
    """Return a distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _imported(path: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
