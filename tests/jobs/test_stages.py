"""Stages of a long protocol: done once, timed, taken up by a later run with the same settings."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.stages import Stages, result_of

SETTINGS = {"minutes": 3, "entry": "a", "device": "cpu"}


def work(done: list[str], name: str) -> Generator[Event, None, str]:
    yield Progress(0.5, name)
    done.append(name)
    return name


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    done: list[str] = []
    first = Stages(tmp_path, SETTINGS, ("minutes", "entry"), resume=False)
    shown = list(first.once("train", work(done, "train"), 0.2, 0.4))
    assert [event.fraction for event in shown if isinstance(event, Progress)] == [
        pytest.approx(0.4)
    ]
    again = Stages(tmp_path, SETTINGS | {"device": "cuda"}, ("minutes", "entry"), resume=True)
    assert list(again.once("train", work(done, "train"), 0.2, 0.4)) == [
        Note("train was done before")
    ]
    list(again.once("infer", work(done, "infer"), 0.6, 0.4))
    assert done == ["train", "infer"]
    assert set(json.loads((tmp_path / "stages.json").read_text())["done"]) == {"train", "infer"}
    assert again.markdown().count("\n| ") == 3
    list(
        Stages(tmp_path, SETTINGS, ("minutes",), resume=False).once(
            "train", work(done, "train"), 0, 1
        )
    )
    assert done[-1] == "train"  # begun anew


def test_settings_that_matter_must_be_the_same(tmp_path: Path) -> None:
    list(
        Stages(tmp_path, SETTINGS, ("minutes",), resume=False).once(
            "train", work([], "train"), 0, 1
        )
    )
    with pytest.raises(MetadataError, match=r"had other settings \(minutes\)"):
        Stages(tmp_path, SETTINGS | {"minutes": 5}, ("minutes", "entry"), resume=True)


def test_a_stage_that_fails_was_not_done(tmp_path: Path) -> None:
    def failing() -> Generator[Event, None, None]:
        yield Progress(0.1, "x")
        raise MetadataError("no poses")

    stages = Stages(tmp_path, SETTINGS, (), resume=False)
    with pytest.raises(MetadataError, match="no poses"):
        list(stages.once("align", failing(), 0, 1))
    assert stages.times == {}
    assert not (tmp_path / "stages.json").exists()


def test_the_result_of_a_job_is_returned_and_its_words_passed_on() -> None:
    def job(ends: bool) -> Events:
        yield Note("phases are not flipped, as is meant")
        yield Note("box is odd", warning=True)
        yield Progress(0.5, "half way")
        if ends:
            yield Result({}, {"number": 3})

    def collected(ends: bool) -> Generator[Event, None, Result]:
        result = yield from result_of(job(ends), "predict", expected="not flipped")
        return result

    results: list[Result] = []

    def kept() -> Generator[Event, None, None]:
        results.append((yield from collected(True)))

    shown = list(kept())
    assert results[0].metrics == {"number": 3}
    assert shown == [Note("box is odd", warning=True), Progress(0.5, "predict: half way")]
    with pytest.raises(RuntimeError, match="predict ended without a result"):
        list(collected(False))
