#!/bin/sh
# Compares proto/ with the last commit before this one that changed it: on main, or, where this is
# main, in its past. A checkout without history has nothing to compare with, and says so.
set -eu
cd "$(dirname "$0")/.."
history=$(git rev-parse --path-format=absolute --git-common-dir 2>/dev/null || true)
base=
if [ -n "$history" ]; then
	for start in refs/heads/main refs/remotes/origin/main; do
		tip=$(git rev-parse -q --verify "$start^{commit}" || true)
		[ -n "$tip" ] || continue
		[ "$tip" != "$(git rev-parse HEAD)" ] || tip=$(git rev-parse -q --verify "HEAD~1" || true)
		[ -z "$tip" ] || base=$(git log -1 --format=%H "$tip" -- proto/cdc)
		break
	done
fi
if [ -z "$base" ]; then
	echo "no earlier proto/ in the history: nothing to compare with"
	exit 0
fi
echo "compared with $base"
exec .venv/bin/buf breaking proto --against "$history#ref=$base,subdir=proto"
