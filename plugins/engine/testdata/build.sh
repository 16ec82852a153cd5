#!/bin/sh
# Builds the guests of the tests: clang with lld (Debian: clang lld), and wat2wasm (Debian: wabt).
set -eu
cd "$(dirname "$0")"
clang --target=wasm32 -O2 -mbulk-memory -nostdlib -Wl,--no-entry -Wl,-z,stack-size=65536 -Wl,--strip-debug -o script.wasm script.c
for f in *.wat; do
	[ -e "$f" ] || continue
	wat2wasm --debug-names -o "${f%.wat}.wasm" "$f"
done
