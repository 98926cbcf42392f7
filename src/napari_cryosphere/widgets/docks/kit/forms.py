"""Forms made of the fields of a config, with magicgui: bounds, choices and help are the config's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, LineEdit, SpinBox
from pydantic import BaseModel, ValidationError
from qtpy.QtWidgets import QFormLayout, QLineEdit, QWidget

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.configs.fields import assign, complaint, limits, limits_in_words
from napari_cryosphere.widgets.docks.kit.style import caption, mark

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs.bases import JobConfig
    from napari_cryosphere.jobs.configs.fields import FieldSpec

__all__ = ["ConfigForm"]

_MODES = {
    "read": FileDialogMode.EXISTING_FILE,
    "write": FileDialogMode.OPTIONAL_FILE,
    "folder": FileDialogMode.EXISTING_DIRECTORY,
}
_LARGEST = 2**31 - 1  # of Qt's whole numbers


class ConfigForm:
    """One row per field of a config; `value` gives the config, `set_value` shows one.

    ``config``: the class of the config. ``fields``: those of its fields that are shown, in this
    order. ``fixed``: values of fields that are not shown. ``native``: the form as a widget of Qt.
    ``widgets``: magicgui's widget of each row, by the field's key.
    """

    def __init__(
        self,
        config: type[JobConfig],
        fields: Sequence[FieldSpec],
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        self._config, self._fixed = config, dict(fixed or {})
        self.fields = {spec.key: spec for spec in fields}
        self.widgets = {key: _widget(spec) for key, spec in self.fields.items()}
        self.native = self._laid_out()
        self._untouched = {key: self.shown(key) for key in self.widgets}
        for widget in self.widgets.values():
            widget.changed.connect(self._mark_wrong)

    def _laid_out(self) -> QWidget:
        """Return a widget of Qt with the rows below each other, their names to the left."""
        native = QWidget()
        rows = QFormLayout(native)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(4)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for key, widget in self.widgets.items():
            if isinstance(field := _typed_in(widget), QLineEdit):
                field.setPlaceholderText("required" if self.fields[key].required else "optional")
            name = caption("" if isinstance(widget, CheckBox) else widget.label)
            name.setToolTip(widget.tooltip)
            rows.addRow(name, widget.native)
        return native

    def value(self) -> JobConfig:
        """Return the config; fields that were left as they were have the config's own defaults.

        Raises `CryosphereError` if a value is missing or not legal: the first is named.
        """
        try:
            return self._config.model_validate({**self.given(), **self._fixed})
        except ValidationError as error:
            raise CryosphereError(
                complaint(error, self._config, self.fields.values(), _label)
            ) from error

    def wrong(self) -> dict[str, str]:
        """Return what is wrong with the values of rows, by their keys; rows that are empty are not."""
        try:
            self._config.model_validate({**self.given(), **self._fixed})
        except ValidationError as error:
            found = {
                tuple(part for part in one["loc"] if isinstance(part, str)): one["msg"]
                for one in error.errors()
                if one["type"] != "missing"
            }
            return {
                key: found[spec.path].removeprefix("Value error, ")
                for key, spec in self.fields.items()
                if spec.path in found
            }
        return {}

    def _mark_wrong(self, *_: object) -> None:
        """Mark the rows whose values are not legal, while they are typed."""
        wrong = self.wrong()
        for key, widget in self.widgets.items():
            mark(_typed_in(widget), wrong.get(key, ""))

    def given(self) -> dict[str, Any]:
        """Return the values of rows that were changed, by the config's keys, as they were typed."""
        values: dict[str, Any] = {}
        for key, spec in self.fields.items():
            shown = self.shown(key)
            if shown != self._untouched[key]:
                assign(values, spec, shown)
        return values

    def set_value(self, config: JobConfig) -> None:
        """Show a config."""
        for key, spec in self.fields.items():
            self.fill(key, _value_in(config, spec))

    def show_defaults(self, values: BaseModel) -> None:
        """Show other defaults, such as a preset's, in the rows that were not changed.

        ``values``: has some of the fields, by the same names.
        """
        for key, spec in self.fields.items():
            if hasattr(values, spec.path[0]) and self.shown(key) == self._untouched[key]:
                default = _value_in(values, spec)
                if _text(default) != _text(self.shown(key)):
                    self.fill(key, default)
                    self._untouched[key] = self.shown(key)

    def missing(self) -> list[str]:
        """Return the labels of required rows that are empty."""
        return [
            _label(spec)
            for key, spec in self.fields.items()
            if spec.required and self.shown(key) is None
        ]

    def fill(self, key: str, value: Any) -> None:
        """Show a value in the row of a field."""
        widget = self.widgets[key]
        if isinstance(widget, FileEdit):  # its own value would be an absolute path
            widget.line_edit.value = _text(value)
        else:
            widget.value = _text(value) if isinstance(widget, LineEdit) else value

    def shown(self, key: str) -> Any:
        """Return what a row shows, as the config takes it; None where it is empty."""
        spec, widget = self.fields[key], self.widgets[key]
        if isinstance(widget, FileEdit):
            files = [
                str(Path(word).expanduser())
                for word in widget.line_edit.value.strip().split(", ")
                if word
            ]
            return (tuple(files) if spec.count == 0 else files[0]) if files else None
        if not isinstance(widget, LineEdit):
            return widget.value
        words = widget.value.strip()
        return tuple(words.split()) if words and spec.count != 1 else words or None


def _widget(spec: FieldSpec) -> Any:
    """Return the widget of a field."""
    common: dict[str, Any] = {"name": spec.key, "label": _label(spec), "tooltip": _tip(spec)}
    default: Any = spec.default
    if spec.kind == "flag" and not spec.optional:
        return CheckBox(value=bool(default), **common)
    if spec.kind in ("flag", "choice") and spec.count == 1:
        choices = [("yes", True), ("no", False)] if spec.kind == "flag" else list(spec.choices)
        nullable = spec.optional or spec.required
        return ComboBox(choices=choices, value=default, nullable=nullable, **common)
    if spec.kind == "path":
        mode = FileDialogMode.EXISTING_FILES if spec.count == 0 else _MODES[spec.file.use]
        filters = None if spec.file.use == "folder" else f"{spec.label} ({spec.file.patterns})"
        edit = FileEdit(mode=mode, filter=filters, nullable=True, **common)
        edit.line_edit.value = _text(default)
        edit.choose_btn.text = "…"
        return edit
    if spec.count == 1 and spec.kind == "integer" and default is not None:
        known = limits(spec.info)
        lowest = known["gt"] + 1 if "gt" in known else known.get("ge", -_LARGEST)
        highest = known["lt"] - 1 if "lt" in known else known.get("le", _LARGEST)
        step = int(known.get("multiple_of", 1))
        return SpinBox(value=default, min=int(lowest), max=int(highest), step=step, **common)
    # a spin box would round a number to its decimals without a word
    return LineEdit(value=_text(default), **common)


def _typed_in(widget: Any) -> QWidget:
    """Return what a person types a row's value into."""
    field: QWidget = (widget.line_edit if isinstance(widget, FileEdit) else widget).native
    return field


def _value_in(config: BaseModel, spec: FieldSpec) -> Any:
    """Return the value of a field in a config; of several models inside it the first one's."""
    found: Any = config
    for name in spec.path:
        found = getattr(found[0] if isinstance(found, tuple) else found, name)
    return found


def _label(spec: FieldSpec) -> str:
    """Return a field's name in words, with its unit."""
    unit = {"DEGREES": "°", "SECONDS": "s", "A": "Å", "A^2": "Å²"}.get(spec.unit or "", spec.unit)
    return f"{spec.label} ({unit.lower() if unit in ('PX',) else unit})" if unit else spec.label


def _tip(spec: FieldSpec) -> str:
    bounds = limits_in_words(spec.info)
    required = "Required. " if spec.required else ""
    return f"{required}{spec.help}" + (f" [{bounds}]" if bounds else "")


def _text(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        separator = ", " if value and isinstance(value[0], Path) else " "
        return separator.join(map(_text, value))
    return str(value).removesuffix(".0")
