# Read by tests/run and tests/image: installs what they need by the package manager of this system.

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a service when its package is installed, unless this file forbids it.
apt_install() {
    local policy=/usr/sbin/policy-rc.d placed=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        placed=yes
    fi
    local status=0
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update && apt-get install --yes --no-install-recommends "$@"' apt "$@" || status=$?
    if [ -n "$placed" ]; then as_root rm -f "$policy"; fi
    return "$status"
}

# need PROGRAM APT DNF APK BREW: installs the package of this system that brings the program.
need() {
    command -v "$1" >/dev/null && return
    echo "$0: $1 is missing, installing it"
    if command -v apt-get >/dev/null; then apt_install "$2"
    elif command -v dnf >/dev/null; then as_root dnf install --assumeyes "$3"
    elif command -v apk >/dev/null; then as_root apk add "$4"
    elif command -v brew >/dev/null; then brew install "$5"
    else echo "$0: found no apt-get, dnf, apk or brew; install $1 by hand" >&2; exit 1
    fi
    command -v "$1" >/dev/null || { echo "$0: $1 is still missing after the installation" >&2; exit 1; }
}
