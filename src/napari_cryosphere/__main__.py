"""``python -m napari_cryosphere`` is the ``napari-cryosphere`` command."""

from napari_cryosphere.cli import main

if __name__ == "__main__":
    main()
