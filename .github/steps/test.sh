#!/usr/bin/env bash
# Builds xtask in the action's own folder and becomes `xtask test`, in the workspace, from where paths are
# seen. Its inputs are in the environment; what it says goes to $SAID as well, and what cargo does to
# $SAID.build.
set -euo pipefail
args=(--yes)
if [ "$REQUIRE_KVM" = true ]; then args+=(--require-kvm); fi
while IFS= read -r line; do
  if [ -n "$line" ]; then args+=(--replace "$line"); fi
done <<<"$REPLACE"
while IFS= read -r line; do
  if [ -n "$line" ]; then args+=("$line"); fi
done <<<"$ARGS"
# Of an earlier use of the action in this job: not what this one has to say.
rm -rf "$RESULTS"
# Locked for as long as somebody writes to it, which may be longer than this step.
exec 9>"$SAID"
flock 9
# Where the step has a terminal, that ends with the step, and hangs up on whoever still writes.
trap '' HUP
exec 3> >(tee "$SAID" >&2) 4> >(tee "$SAID.build" >&2) 9>&-
trap - HUP
# rust-toolchain.toml names the version; rustup, which the runner has, installs it.
(cd "$ACTION" && rustup show && cargo build --locked --package xtask) 2>&4 3>&- 4>&-
# Whoever cancels a job signals the step's shell alone: there must be none any more.
exec "$CARGO_TARGET_DIR/debug/xtask" test "${args[@]}" 2>&3 3>&- 4>&-
