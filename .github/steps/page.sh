#!/usr/bin/env bash
# What the run's page gets, on standard output: of results.json, or else of the last words. GitHub takes
# 1 MiB of a step, and shows less.
set -euo pipefail
page() {
  if [ -e "$RESULTS/results.json" ]; then
    jq -r -f "$ACTION/.github/summary.jq" "$RESULTS/results.json"
    return
  fi
  echo 'podwire ended before it had results. Its last words:'
  echo
  # None at all when not even the step before has begun.
  if [ ! -e "$SAID" ]; then return; fi
  # What is copied to it may still be on its way.
  flock --timeout 10 "$SAID" true || true
  # Nothing of xtask's when it could not be built.
  local said=$SAID
  if [ ! -s "$said" ]; then said=$SAID.build; fi
  if [ ! -e "$said" ]; then return; fi
  # As a code block by its indent: nothing in it can end it.
  tail -n 40 "$said" | tr -d '\000-\010\013-\037\177' | cut -c -400 | sed 's/^/    /'
}
page | head -c 65536
