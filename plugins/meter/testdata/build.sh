#!/bin/sh
# Builds the modules of the tests with wat2wasm (Debian: wabt).
set -eu
cd "$(dirname "$0")"
for f in *.wat; do
	wat2wasm --debug-names -o "${f%.wat}.wasm" "$f"
done
