#!/usr/bin/env bash
# Becomes `xtask test`, or `xtask compare`, with the action's inputs, which are in the environment.
set -euo pipefail
args=(--yes)
if [ "$PREPARE" = true ]; then
  args+=(--prepare-only)
elif [ "$REQUIRE_KVM" = true ]; then
  args+=(--require-kvm)
fi
# Each line of an input is one argument.
base=() head=() further=()
while IFS= read -r line; do
  if [ -n "$line" ]; then head+=(--replace "$line"); fi
done <<<"$REPLACE"
while IFS= read -r line; do
  if [ -n "$line" ]; then head+=("$line"); fi
done <<<"$HEAD"
while IFS= read -r line; do
  if [ -n "$line" ]; then base+=("$line"); fi
done <<<"$BASE"
while IFS= read -r line; do
  if [ -n "$line" ]; then further+=("$line"); fi
done <<<"$ARGS"

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
