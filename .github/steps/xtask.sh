#!/usr/bin/env bash
# Builds xtask in the action's own folder and becomes it, with the arguments given, in the folder from which
# paths are seen. What it says goes to $SAID as well, and what cargo does to $SAID.build.
set -euo pipefail
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
exec "$CARGO_TARGET_DIR/debug/xtask" "$@" 2>&3 3>&- 4>&-
