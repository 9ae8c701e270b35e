#!/usr/bin/env bash
# Puts promtool and prometheus into a folder, for the tests of the alerts: `install-promtool.sh FOLDER`.
#
# If the machine has both, links lead to them. Else Debian's package is fetched by apt-get and unpacked. The lists of packages
# are fetched into FOLDER where the machine's are absent, so no right of root is needed, and no service starts.
# Ends with 0 in any case: who only runs the demo needs neither. FOLDER/installed exists only when both are there.
set -euo pipefail

folder=$1
rm -rf "$folder" && mkdir -p "$folder"
cd "$folder"

fetch() {
  apt-get -qq -o APT::Sandbox::User="$(id -un)" "$@" download prometheus
}

unpack_package() {
  if ! fetch 2>/dev/null; then
    mkdir -p apt/lists/partial apt/cache/archives/partial
    local own=(-o Dir::State::Lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache")
    apt-get -qq -o APT::Sandbox::User="$(id -un)" "${own[@]}" update && fetch "${own[@]}" || return 1
  fi
  dpkg -x prometheus_*.deb unpacked && mv unpacked/usr/bin/promtool unpacked/usr/bin/prometheus . || return 1
  rm -rf prometheus_*.deb unpacked apt
}

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  ln -s "$(command -v promtool)" "$(command -v prometheus)" .
elif command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
  echo "unpacking Debian's package prometheus into .promtool"
  unpack_package || true
fi
if [[ -x promtool && -x prometheus ]]; then
  touch installed
else
  echo "promtool and prometheus are missing, so the tests of the alerts will fail: install the package prometheus" >&2
fi
