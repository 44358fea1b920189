#!/bin/sh
# Renew the hashed lock files. $1: the folder of a venv's programs.
set -eu
cd "$(dirname "$0")/.."
bin=$1
"$bin/python" -m pip install --quiet uv
compile="$bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links"
$compile pyproject.toml -o requirements/run.txt
$compile pyproject.toml --group dev requirements/build.in -o requirements/dev.txt
