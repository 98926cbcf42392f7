"""Files that are nearly right end well or with one of the package's own errors; long runs are in
fuzz/.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated
from numpy.lib.recfunctions import repack_fields
from readers import use

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import (
    ParticleStack,
    read_cs,
    read_star,
    write_cs,
    write_stack,
    write_star,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack ``base.mrcs`` and, in ``seeds``, a file of each kind that refers to it."""
    made = tmp_path_factory.mktemp("fuzz")
    (made / "seeds").mkdir()
    rng = np.random.default_rng(0)
    write_stack(rng.normal(size=(12, 8, 8)), made / "base.mrcs", 1.5)
    names = "rlnImageName rlnOpticsGroup rlnRandomSubset rlnAngleRot rlnAngleTilt rlnAnglePsi"
    names += (
        " rlnOriginXAngst rlnOriginYAngst rlnDefocusU rlnDefocusV rlnDefocusAngle rlnPhaseShift"
    )
    rows = [
        f"{index % 12 + 1}@base.mrcs {index % 2 + 1} {index % 2 + 1} "
        + " ".join(f"{value:.4f}" for value in rng.uniform(0, 180, 5))
        + " 12000.5 11000.25 33.5 0.0"
        for index in range(16)
    ]
    optics = (
        "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n"
    )
    optics += "_rlnAmplitudeContrast #4\n_rlnImagePixelSize #5\n_rlnImageSize #6\n"
    optics += "1 300.0 2.7 0.1 1.5 8\n2 200.0 2.7 0.1 1.5 8\n"
    labels = "".join(f"_{name} #{at}\n" for at, name in enumerate(names.split(), 1))
    text = f"{optics}\ndata_particles\n\nloop_\n{labels}" + "\n".join(rows) + "\n"
    (made / "seeds/star").write_text(text)
    (made / "a.star").write_text(text)
    ParticleStack.read(made / "a.star").save(made / "a.cs")
    (made / "seeds/cs").write_bytes((made / "a.cs").read_bytes())
    (made / "seeds/values").write_text(text)
    particles = read_cs(made / "a.cs")
    for name, own in (("base", ("uid", "blob")), ("other", ("uid", "ctf", "alignments3D"))):
        fields = [field for field in particles.dtype.names if field.split("/")[0] in own]
        write_cs(repack_fields(particles[fields]), made / f"{name}.cs")
    (made / "seeds/csg").write_text(
        "group: {name: particles, type: particle}\nresults:\n"
        "  blob: {metafile: '>base.cs', num_items: 16, type: particle.blob}\n"
        "  ctf: {metafile: '>other.cs', num_items: 16, type: particle.ctf}\n"
        "  alignments3D: {metafile: '>other.cs', num_items: 16, type: particle.alignments3D}\n"
    )
    (made / "seeds/mrc").write_bytes((made / "base.mrcs").read_bytes())
    (made / "seeds/gzip").write_bytes(gzip.compress((made / "base.mrcs").read_bytes()))
    return made


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["star", "values", "cs", "csg", "mrc", "gzip"])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=st.randoms(use_true_random=False))
def test_mutated_files(kind: str, folder: Path, chance: random.Random) -> None:
    kind_of_file = "mrc" if kind == "gzip" else kind
    use(kind_of_file, folder, mutated((folder / "seeds" / kind).read_bytes(), kind_of_file, chance))


words = st.text(
    st.characters(codec="utf-8", min_codepoint=33, exclude_categories=("Cs", "Cc")), max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(
        st.one_of(words, words.map(lambda word: f"{word} '{word}")), min_size=1, max_size=5
    ),
    floats=st.floats(allow_nan=False),
    integers=st.integers(-(2**63), 2**64 - 1),
)
def test_any_table_comes_back_and_writes_the_same_bytes(
    texts: list[str], floats: float, integers: int, folder: Path
) -> None:
    table = pd.DataFrame({"someName": pd.Series(texts, dtype=str), "f": floats, "i": integers})
    try:
        write_star({"x": table}, folder / "t.star", overwrite=True)
    except MetadataError:
        assert any("'" in text and '"' in text for text in texts)
        return
    again = read_star(folder / "t.star")
    assert again["x"]["someName"].tolist() == texts
    assert (again["x"]["f"] == floats).all()
    assert (again["x"]["i"] == integers).all()
    write_star(again, folder / "u.star", overwrite=True)
    assert (folder / "t.star").read_bytes() == (folder / "u.star").read_bytes()
