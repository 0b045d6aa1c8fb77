#!/usr/bin/env bash
# Sets up a virtual environment and runs the tests: all that a fresh machine with Python and pip needs.
#   bash launch/test.sh                 the quick tests
#   bash launch/test.sh -m slow         crash, elastic and end-to-end drills
#   bash launch/test.sh tests/data      some of them
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${JAXSPEECH_VENV:-.venv}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet -e '.[test]'
"$venv/bin/python" -m jaxspeech.ops.native || true  # without a C++ compiler their tests are skipped
exec "$venv/bin/python" -m pytest "$@"
