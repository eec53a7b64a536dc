#!/usr/bin/env bash
# Becomes `xtask test`, or `xtask compare`, with the action's inputs, which are in the environment.
set -euo pipefail
args=(--yes)
if [ "$PREPARE" = true ]; then
  args+=(--prepare-only)
elif [ "$REQUIRE_KVM" = true ]; then
  args+=(--require-kvm)
fi
# add ARRAY INPUT [FLAG]: each line of an input is one argument, and has the flag before it.
add() {
  local -n to=$1
  local line
  while IFS= read -r line; do
    if [ -n "$line" ]; then to+=(${3:+"$3"} "$line"); fi
  done <<<"$2"
}
base=() head=() further=()
add head "$REPLACE" --replace
add head "$HEAD"
add base "$BASE"
add further "$ARGS"

# Of an earlier use of the action in this job: not what this one has to say.
rm -rf "$RESULTS"
xtask=$(dirname "$0")/xtask.sh
if [ "$COMPARE" != true ]; then
  if [ -n "$BASE$HEAD" ]; then
    echo "error: base and head are the sides of a comparison: that is made where compare is true" |
      tee "$SAID" >&2
    exit 2
  fi
  exec "$xtask" test "${args[@]}" "${head[@]}" "${further[@]}"
fi

# A side is a file with flags, read as a shell would.
side() {
  local name=$1
  shift
  { if [ $# != 0 ]; then printf '%q\n' "$@"; fi; } >"$SAID.$name"
}
side base "${base[@]}"
side head "${head[@]}"
exec "$xtask" compare "$SAID.base" "$SAID.head" "${args[@]}" "${further[@]}"
