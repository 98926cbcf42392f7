"""Imports between modules: no circle, wherever in a module an import is written."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports, those inside functions and under TYPE_CHECKING included."""
    return grimp.build_graph("napari_cryosphere", cache_dir=None)


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert imports["napari_cryosphere.so3.distributions.harmonic"]
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail("imports form a circle: " + " <- ".join(error.args[1]))
