#!/bin/sh
# Builds the modules of the built-in plugins with a pinned compiler, which it installs from PyPI into bin/zig.
#   build.sh          writes the modules and their digests
#   build.sh check    builds them elsewhere and compares
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$here/../../bin/zig
version=0.17.1
if [ ! -f "$venv/$version" ]; then
	python3 -m venv --clear "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check "ziglang==$version"
	touch "$venv/$version"
fi
out=$here
if [ "${1:-}" = check ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
# build NAME KIB: KIB of memory hold the stack, the data and the largest usual frame, so that memory need not grow. The
# host restores all of it before each frame, so there is no more: 4,096 records with 16-byte keys, or 421 KiB.
build() {
	"$venv/bin/python" -m ziglang cc --target=wasm32-freestanding -O3 -nostdlib -Wall -Wextra -Werror -I"$here/../guest/c" \
		-Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=4096 -Wl,--initial-memory=$(($2 * 1024)) -o "$out/$1.wasm" "$here/src/$1.c"
	chmod 644 "$out/$1.wasm"
}
build dedup-header 448
build dedup-key 256
build dedup-json 448
build filter-json 448
build redact 896 # and as much again for what comes out
(cd "$out" && sha256sum ./*.wasm | sed 's| \./| |') >"$out/SHA256SUMS"
if [ "$out" != "$here" ]; then
	for f in "$out"/*; do
		cmp "$f" "$here/$(basename "$f")"
	done
	echo "the checked-in modules are what their sources build"
fi
