#!/usr/bin/env bash
# Checks what the build needs from the system; installs what is missing where it may (root or sudo
# without a password, on a Debian-like system), else prints the exact line and stops.
# KDSWIFT_INSTALL=no: only checks.
set -euo pipefail
PYTHON=${PYTHON:-python3}
SWIFT=${SWIFT:-swift}

stop() { printf '\n%s\n' "$@" >&2; exit 1; }

swift_version() { "$SWIFT" --version 2>/dev/null | grep -oE 'Swift version [0-9]+\.[0-9]+' | head -n 1 | cut -d' ' -f3; }

if ! command -v "$SWIFT" >/dev/null; then
  stop "Swift 6.2 or newer is needed and 'swift' is not on PATH." \
    "Get it from https://www.swift.org/install/linux (a tar file; add its usr/bin to PATH)."
fi
version=$(swift_version)
if [ "$(printf '%s\n6.2\n' "$version" | sort -V | head -n 1)" != 6.2 ]; then
  stop "Swift 6.2 or newer is needed; this is $version ($(command -v "$SWIFT"))." \
    "Get a newer one from https://www.swift.org/install/linux."
fi

missing=()
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  stop "Python 3.10 or newer is needed; name one with: make PYTHON=/path/to/python3 ..."
fi
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-dev python3-venv)
[ -e /usr/include/dnnl.h ] || [ -e /usr/local/include/dnnl.h ] || missing+=(libdnnl-dev)
compgen -G '/usr/lib*/openblas-openmp/libopenblas.so' >/dev/null \
  || compgen -G '/usr/lib/*/openblas-openmp/libopenblas.so' >/dev/null \
  || missing+=(libopenblas-openmp-dev)
[ ${#missing[@]} -eq 0 ] && exit 0

line="apt-get install --yes --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  stop "Missing: ${missing[*]} (the names of Debian's packages). Install your system's counterparts."
fi
may_install() { [ "${KDSWIFT_INSTALL:-yes}" != no ]; }
if may_install && [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif may_install && sudo -n true 2>/dev/null; then
  as_root=(sudo)
else
  stop "Missing: ${missing[*]}. Run this, then try again:" "  sudo apt-get update && sudo $line"
fi
echo "Installing: ${missing[*]}"
"${as_root[@]}" apt-get update --quiet=2 </dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $line --quiet=2 </dev/null >/dev/null
