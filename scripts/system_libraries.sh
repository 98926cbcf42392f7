#!/usr/bin/env bash
# Check the system's own libraries that Qt 6 (xcb) and OpenGL need, and the virtual X server that the tests use.
# On Debian and Ubuntu the missing ones are installed with apt-get where that needs no password.
set -euo pipefail
[ "$(uname -s)" = Linux ] || exit 0
PATH=$PATH:/usr/sbin:/sbin

# What libQt6Gui, libQt6Network and libqxcb of PySide6-Essentials link to outside their wheel, vispy's OpenGL,
# and the package of Debian that has it.
libraries='
libEGL.so.1              libegl1
libGL.so.1               libgl1
libX11-xcb.so.1          libx11-xcb1
libX11.so.6              libx11-6
libbrotlidec.so.1        libbrotli1
libdbus-1.so.3           libdbus-1-3
libfontconfig.so.1       libfontconfig1
libfreetype.so.6         libfreetype6
libglib-2.0.so.0         libglib2.0-0
libgssapi_krb5.so.2      libgssapi-krb5-2
libstdc++.so.6           libstdc++6
libxcb-cursor.so.0       libxcb-cursor0
libxcb-glx.so.0          libxcb-glx0
libxcb-icccm.so.4        libxcb-icccm4
libxcb-image.so.0        libxcb-image0
libxcb-keysyms.so.1      libxcb-keysyms1
libxcb-randr.so.0        libxcb-randr0
libxcb-render-util.so.0  libxcb-render-util0
libxcb-render.so.0       libxcb-render0
libxcb-shape.so.0        libxcb-shape0
libxcb-shm.so.0          libxcb-shm0
libxcb-sync.so.1         libxcb-sync1
libxcb-util.so.1         libxcb-util1
libxcb-xfixes.so.0       libxcb-xfixes0
libxcb-xkb.so.1          libxcb-xkb1
libxcb.so.1              libxcb1
libxkbcommon-x11.so.0    libxkbcommon-x11-0
libxkbcommon.so.0        libxkbcommon0
libz.so.1                zlib1g
libzstd.so.1             libzstd1
'

missing=() packages=()
find_missing() {
    local cache name package
    missing=() packages=()
    cache=$(ldconfig -p)
    while read -r name package; do
        if [ -n "$name" ] && ! grep -qF "$name " <<<"$cache"; then
            missing+=("$name") packages+=("$package")
        fi
    done <<<"$libraries"
    command -v xvfb-run >/dev/null || { missing+=(xvfb-run) packages+=(xvfb); }
    command -v xauth >/dev/null || { missing+=(xauth) packages+=(xauth); }
}

find_missing
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "The windows of napari need these, which this system lacks; install the packages that have them:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
    sudo=(sudo -n)
    if ! sudo -n true 2>/dev/null; then
        echo "The windows of napari need system libraries that are not installed. Run this, then try again:" >&2
        echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}" >&2
        exit 1
    fi
fi
echo "Installing system libraries: ${packages[*]}"
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null

find_missing
if [ ${#missing[@]} -gt 0 ]; then
    echo "Still missing after apt-get install: ${missing[*]}" >&2
    exit 1
fi
