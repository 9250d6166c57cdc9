#!/usr/bin/env bash
# Builds a wheel from a tree without git, and uses it in an empty environment,
# where a missing file (migrations, templates, py.typed) is noticed. Then it builds the
# documentation of that tree.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/tree"
git archive HEAD | tar -x -C "$work/tree"
python3 -m venv "$work/venv"
cd "$work"
PBR_VERSION=0.1.0 venv/bin/pip wheel -q --no-deps -w wheels ./tree
venv/bin/pip install -q -c tree/constraints.txt wheels/*.whl

cat > my.conf <<CONFIG
[DEFAULT]
state_path = $work/state
CONFIG
manage="venv/bin/myservice-manage --config-file my.conf"
$manage --version
$manage db sync
$manage db check
$manage service list --json
$manage config sample > sample.conf
$manage db revision -m check --json
test -f venv/etc/myservice/myservice.conf
test -f "$(echo venv/lib/python3*/site-packages/myservice/py.typed)"

venv/bin/pip install -q -c tree/constraints.txt -r tree/doc/requirements.txt
# Without -W: the theme warns that there is no git.
venv/bin/sphinx-build -q tree/doc/source html
test -f html/reference/release-notes.html
echo 'The wheel and the sources are complete.'
