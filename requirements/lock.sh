#!/bin/sh
# Writes the lock files of this folder anew from pyproject.toml: exact versions with hashes, for every
# platform and for Python 3.11 and 3.12. What is locked stays unless UPGRADE is set. Needs a folder
# for its own tool as the argument.
set -eu
tools=$1
"$(dirname "$0")/../.venv/bin/python" -m venv "$tools"
"$tools/bin/pip" install -q --disable-pip-version-check uv

# Every connector, the control service and traces, since the tests run them all.
EXTRAS="--extra control --extra elasticsearch --extra mysql --extra rest --extra traces --extra webhook"

# Extras are kept in the files: pip takes the newest release of a package that another one wants with an
# extra, and then refuses its hash, unless the file pins the package with that extra.
lock() {
	output=requirements/$1
	shift
	echo "lock: $output"
	"$tools/bin/uv" pip compile -q ${UPGRADE:+--upgrade} --universal --python-version 3.11 --no-strip-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		"$@" -o "$output"
}

lock runtime.txt pyproject.toml
lock dev.txt pyproject.toml requirements/tools.in --extra dev --extra demo $EXTRAS
lock bench.txt pyproject.toml requirements/tools.in --extra dev --extra demo --extra bench $EXTRAS
rm -rf "$tools"
