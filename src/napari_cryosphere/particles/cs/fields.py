"""What the fields of a .cs file are in RELION's terms: names, types, units.

| cryoSPARC | RELION |
|---|---|
| ``alignments3D/pose``, rotation vector in radians | Euler angles in degrees |
| ``alignments3D/shift``, pixels of ``alignments3D/psize_A`` | ``rlnOriginX/YAngst``, the same sign |
| ``alignments3D/split``, ``/class``, counted from 0 | ``rlnRandomSubset``, ``rlnClassNumber``, from 1 |
| ``blob/idx`` from 0, ``blob/path`` | ``rlnImageName``, from 1 |
| ``ctf/bfactor`` | ``rlnCtfBfactor`` |
| ``ctf/df_angle_rad``, ``ctf/phase_shift_rad`` | ``rlnDefocusAngle``, ``rlnPhaseShift`` in degrees |

The rotation vector's matrix takes image coordinates to map coordinates, as the package's poses do.
pyem (``csparc2star.py``) and cryoDRGN (``parse_pose_csparc``) both take the transpose of that
matrix for what RELION's angles are the matrix of; signs of shifts and defocus angles are pyem's.
One data set that exists in both formats (EMPIAR-10076) agrees in its CTF.
"""

from __future__ import annotations

__all__ = [
    "CARRIED",
    "CTF",
    "DEFAULTS",
    "NAMES",
    "OF_GROUP",
    "OPTICS_CARRIED",
    "OTHER",
    "SIGN",
    "TYPES",
]

#: Fields that a whole optics group shares.
OF_GROUP = {
    "ctf/accel_kv": "rlnVoltage",
    "ctf/cs_mm": "rlnSphericalAberration",
    "ctf/amp_contrast": "rlnAmplitudeContrast",
    "blob/psize_A": "rlnImagePixelSize",
}

#: Fields of each particle, and what they are multiplied by ("rad": from radians to degrees).
CTF = {
    "ctf/df1_A": ("rlnDefocusU", ""),
    "ctf/df2_A": ("rlnDefocusV", ""),
    "ctf/df_angle_rad": ("rlnDefocusAngle", "rad"),
    "ctf/phase_shift_rad": ("rlnPhaseShift", "rad"),
    "ctf/bfactor": ("rlnCtfBfactor", ""),
}

#: What a .cs file calls RELION's columns, for messages.
NAMES = {
    **{column: field for field, column in OF_GROUP.items()},
    **{column: field for field, (column, _) in CTF.items()},
    **dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), "alignments3D/pose"),
    **dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), "alignments3D/shift"),
    **dict.fromkeys(("rlnBeamTiltX", "rlnBeamTiltY"), "ctf/tilt_A"),
    **dict.fromkeys(("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"), "ctf/anisomag"),
    "rlnImageName": "blob/path",
    "rlnImageSize": "blob/shape",
    "rlnRandomSubset": "alignments3D/split",
    "rlnMicrographName": "location/micrograph_path",
    "rlnHelicalTubeID": "filament/filament_uid",
    "rlnOpticsGroup": "ctf/exp_group_id",
}

#: Prefix of the columns that keep cryoSPARC's other fields in a STAR file, and of the fields that keep
#: RELION's other columns in a .cs file.
CARRIED = "cryosparc/"
OTHER = "relion/"
#: 1, or -1 for images that are dark on light; a column of the same name in a STAR file is applied too.
SIGN = CARRIED + "blob/sign"
OPTICS_CARRIED = "relion_optics/"

#: Types of cryoSPARC's own fields, in the order in which they are written.
TYPES: dict[str, tuple[str, int]] = {
    "uid": ("<u8", 1),
    "blob/path": ("S", 1),
    "blob/idx": ("<u4", 1),
    "blob/shape": ("<u4", 2),
    "blob/psize_A": ("<f4", 1),
    "blob/sign": ("<f4", 1),
    "blob/import_sig": ("<u8", 1),
    "location/micrograph_uid": ("<u8", 1),
    "location/exp_group_id": ("<u4", 1),
    "location/micrograph_path": ("S", 1),
    "location/micrograph_shape": ("<u4", 2),
    "location/center_x_frac": ("<f4", 1),
    "location/center_y_frac": ("<f4", 1),
    "filament/filament_uid": ("<u8", 1),
    "filament/filament_pose": ("<f4", 1),
    "filament/position_A": ("<f4", 1),
    "ctf/type": ("S", 1),
    "ctf/exp_group_id": ("<u4", 1),
    "ctf/accel_kv": ("<f4", 1),
    "ctf/cs_mm": ("<f4", 1),
    "ctf/amp_contrast": ("<f4", 1),
    "ctf/df1_A": ("<f4", 1),
    "ctf/df2_A": ("<f4", 1),
    "ctf/df_angle_rad": ("<f4", 1),
    "ctf/phase_shift_rad": ("<f4", 1),
    "ctf/scale": ("<f4", 1),
    "ctf/scale_const": ("<f4", 1),
    "ctf/shift_A": ("<f4", 2),
    "ctf/tilt_A": ("<f4", 2),
    "ctf/trefoil_A": ("<f4", 2),
    "ctf/tetra_A": ("<f4", 4),
    "ctf/anisomag": ("<f4", 4),
    "ctf/bfactor": ("<f4", 1),
    "alignments3D/split": ("<u4", 1),
    "alignments3D/shift": ("<f4", 2),
    "alignments3D/pose": ("<f4", 3),
    "alignments3D/psize_A": ("<f4", 1),
    "alignments3D/error": ("<f4", 1),
    "alignments3D/error_min": ("<f4", 1),
    "alignments3D/resid_pow": ("<f4", 1),
    "alignments3D/slice_pow": ("<f4", 1),
    "alignments3D/image_pow": ("<f4", 1),
    "alignments3D/cross_cor": ("<f4", 1),
    "alignments3D/alpha": ("<f4", 1),
    "alignments3D/alpha_min": ("<f4", 1),
    "alignments3D/weight": ("<f4", 1),
    "alignments3D/pose_ess": ("<f4", 1),
    "alignments3D/shift_ess": ("<f4", 1),
    "alignments3D/class_posterior": ("<f4", 1),
    "alignments3D/class": ("<u4", 1),
    "alignments3D/class_ess": ("<f4", 1),
}

#: Values of further fields that cryoSPARC expects, where they are not 0.
DEFAULTS: dict[str, float | bytes] = {
    "blob/sign": 1.0,
    "ctf/type": b"imported",
    "ctf/scale": 1.0,
    "alignments3D/alpha": 1.0,
    "alignments3D/class_posterior": 1.0,
    "alignments3D/class_ess": 1.0,
}
