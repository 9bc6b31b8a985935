#!/bin/sh
# Makes the virtual environment FOLDER from the lock file LOCK, with nothing that is not in the lock,
# and installs the project itself into it, editable.
# usage: requirements/setup.sh FOLDER LOCK        PYTHON=... names the interpreter to use
set -eu
folder=$1 lock=$2

fits() {
	"$1" -c 'import sys, ctypes, ssl; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
		</dev/null >/dev/null 2>&1
}

# A name on PATH may be a shim that runs nothing, so every place is tried, not only the first.
find_python() {
	if [ -n "${PYTHON:-}" ]; then
		command -v "$PYTHON"
		return
	fi
	IFS=:
	for name in python3.12 python3.11 python3; do
		for place in $PATH; do
			if [ -x "$place/$name" ] && fits "$place/$name"; then
				echo "$place/$name"
				return
			fi
		done
	done
}

python=$(find_python) || python=
if [ -z "$python" ] || ! fits "$python"; then
	echo "setup: Python 3.11 or 3.12 is needed, and was not found." >&2
	echo "       Install one (Debian: apt-get install python3 python3-venv), or say PYTHON=/path/to/it." >&2
	exit 1
fi

# A folder that was moved here, or whose interpreter has gone, is of no use.
if [ -d "$folder" ] && ! fits "$folder/bin/python"; then
	rm -rf "$folder"
fi
if [ ! -x "$folder/bin/pip" ]; then
	echo "setup: $folder with $("$python" --version) ($python)"
	rm -rf "$folder"
	if ! "$python" -m venv "$folder"; then
		rm -rf "$folder"
		echo "setup: $python cannot make a virtual environment." >&2
		echo "       Debian keeps that in a package of its own: apt-get install python3-venv" >&2
		exit 1
	fi
fi

quiet="-q --disable-pip-version-check --no-input"
echo "setup: installing $lock"
"$folder/bin/pip" install $quiet --require-hashes -r "$lock"
"$folder/bin/pip" install $quiet --no-build-isolation --no-deps -e .
