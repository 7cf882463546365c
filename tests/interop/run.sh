#!/usr/bin/env bash
# Compiles every fixture and checks the written files with onnx and onnxruntime, runs the operator
# tests of the onnx package, and checks the functions that written files carry, bit for bit.
#
#   tests/interop/run.sh [--binary PAM_COMPILE] [FIXTURE…]
#
# Needs Python 3.10 or later and cargo; makes its own virtual environment (INTEROP_VENV says where).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${INTEROP_VENV:-$here/.venv}
stamp=$venv/requirements.txt
if ! cmp -s "$here/requirements.txt" "$stamp"; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$stamp"
fi
"$venv/bin/python" "$here/check.py" "$@"
binary=()
if [ "${1:-}" = --binary ]; then binary=("$1" "$2"); fi
"$venv/bin/python" -W ignore "$here/check_nodes.py" "${binary[@]}"
functions=$(mktemp -d)
trap 'rm -rf "$functions"' EXIT
cargo run --quiet --manifest-path "$here/../../Cargo.toml" -p pam-ir --example write_functions -- "$functions"
"$venv/bin/python" "$here/check_functions.py" "$functions"
