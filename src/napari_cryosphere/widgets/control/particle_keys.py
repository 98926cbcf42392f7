"""Keys of the canvas that act on particles, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cryosphere.widgets.control.data_sets import DataSets

__all__ = ["ParticleKeys", "answering"]


class ParticleKeys:
    """Keys that act while particles are shown, not maps, and an image or nothing is selected.

    They are bound to the selected layer: a key of the viewer's comes after those of the layer's kind
    (X turns the plane of an image in 3D), and would take napari's own (V hides a layer) from shapes
    and labels.

    ``keys``: what is done, by napari's name of the key.
    """

    def __init__(self, data: DataSets, keys: Mapping[str, Callable[[], object]]) -> None:
        self._data, self._keys = data, dict(keys)
        self._bound: Any = None
        self._signals: tuple[Any, ...] = (
            data.viewer.layers.selection.events.active,
            data.session_changed,
            data.maps.mode_changed,
        )
        for signal in self._signals:
            signal.connect(self._bind)
        self._bind()

    def leave(self) -> None:
        """Give the keys back; the second time nothing happens."""
        for signal in self._signals:
            signal.disconnect(self._bind)
        self._signals = ()
        self._release()

    def _bind(self, _: object = None) -> None:
        target = self._target()
        if target is self._bound:
            return
        self._release()
        if target is not None:
            for key, do in self._keys.items():
                target.bind_key(key, answering(do), overwrite=True)
        self._bound = target

    def _release(self) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            for key in self._keys:
                bound.bind_key(key, None)

    def _target(self) -> Any:
        """Return what the keys are bound to; None where they are not to act."""
        from napari.layers import Image

        viewer = self._data.viewer
        if self._data.session is None or self._data.maps.view.active:
            return None
        layer = viewer.layers.selection.active
        if layer is None:
            return viewer
        return layer if isinstance(layer, Image) else None


def answering(do: Callable[[], object]) -> Callable[[object], None]:
    """Return what answers a key: a function, since napari asks for its name."""

    def answer(_: object) -> None:
        do()

    return answer
