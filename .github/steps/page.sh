#!/usr/bin/env bash
# What the run's page gets, on standard output: of compare.json or results.json, or else of the last words; and
# where $SHARDS names parts that have not become one result, of each of them. GitHub takes 1 MiB of a step, and
# shows less.
set -euo pipefail

last_words() {
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

parts() {
  local part page
  while IFS= read -r part; do
    printf '\n## Part %s\n\n' "$part"
    page=$RESULTS/part-${part%/*}/page.md
    if [ -e "$page" ]; then
      cat "$page"
    else
      echo 'It left nothing, not even last words: its job says more, or never ran.'
    fi
  done < <(jq -r '.[]' <<<"$SHARDS")
}

page() {
  if [ -e "$RESULTS/compare.json" ]; then
    jq -r -L "$ACTION/.github" -f "$ACTION/.github/comparison.jq" "$RESULTS/compare.json"
  elif [ -e "$RESULTS/results.json" ]; then
    jq -r -L "$ACTION/.github" -f "$ACTION/.github/summary.jq" "$RESULTS/results.json"
  elif [ -n "${SHARDS:-}" ]; then
    echo '### podwire: the parts have not become one result'
    echo
    last_words
    parts
  else
    echo 'podwire ended before it had results. Its last words:'
    echo
    last_words
  fi
}

# Who writes more than is taken is no failure.
page | { head -c 65536 && cat >/dev/null; }
