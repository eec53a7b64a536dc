#!/usr/bin/env bash
# Becomes `xtask test`, with the action's inputs, which are in the environment.
set -euo pipefail
args=(--yes)
if [ "$PREPARE" = true ]; then
  args+=(--prepare-only)
elif [ "$REQUIRE_KVM" = true ]; then
  args+=(--require-kvm)
fi
while IFS= read -r line; do
  if [ -n "$line" ]; then args+=(--replace "$line"); fi
done <<<"$REPLACE"
while IFS= read -r line; do
  if [ -n "$line" ]; then args+=("$line"); fi
done <<<"$ARGS"
# Of an earlier use of the action in this job: not what this one has to say.
rm -rf "$RESULTS"
exec "$(dirname "$0")/xtask.sh" test "${args[@]}"
