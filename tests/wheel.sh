#!/usr/bin/env bash
# Build the wheel, install it alone into a fresh environment, and run the end-to-end tests on it in an empty folder:
# what is tested is what users install, not the checkout.
set -euo pipefail
python=$(realpath --no-symlinks "$1")
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work/dist" "$top" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "$work"/dist/*.whl pytest pytest-timeout pytest-xdist openpyxl
mkdir -p "$work/outside/tests"
cp -r "$top/pipelines" "$top/sample_data" "$top/schemas" "$work/outside/"
cp -r "$top/tests/end_to_end" "$top/tests/bench" "$top/tests/chaos" "$top"/tests/*.py "$work/outside/tests/"
cp "$top/pyproject.toml" "$work/outside/"
cd "$work/outside"
"$work/venv/bin/python" -c 'import lamina_batch, sys; sys.exit("outside" in lamina_batch.__file__)'
LAMINA_BATCH_WHEEL=$(echo "$work"/dist/*.whl) "$work/venv/bin/python" -m pytest -q -n 8 tests/end_to_end
