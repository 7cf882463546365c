#!/usr/bin/env bash
# Compiles every fixture and checks the written files with onnx and onnxruntime.
#
#   tests/interop/run.sh [--binary PAM_COMPILE] [FIXTURE…]
#
# Needs Python 3.10 or later; makes its own virtual environment (INTEROP_VENV says where).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${INTEROP_VENV:-$here/.venv}
stamp=$venv/requirements.txt
if ! cmp -s "$here/requirements.txt" "$stamp"; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$stamp"
fi
exec "$venv/bin/python" "$here/check.py" "$@"
