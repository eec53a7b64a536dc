#!/usr/bin/env bash
# Becomes `xtask merge` of the parts $SHARDS (as JSON), whose artifacts are in $PARTS. Their folders go below
# the whole's, $RESULTS: its page leads to their evidence, wherever somebody unpacks it.
set -euo pipefail
rm -rf "$RESULTS"
mkdir -p "$RESULTS"
folders=()
while IFS= read -r part; do
  number=${part%/*}
  folder=$RESULTS/part-$number
  if [ -d "$PARTS/podwire-results-$number" ]; then mv "$PARTS/podwire-results-$number" "$folder"; fi
  if [ -e "$folder/results.json" ] || [ -e "$folder/compare.json" ]; then folders+=("$folder"); fi
done < <(jq -r '.[]' <<<"$SHARDS")
if [ ${#folders[@]} = 0 ]; then
  echo 'error: no part has results' | tee "$SAID" >&2
  exit 2
fi
exec "$(dirname "$0")/xtask.sh" merge --into "$RESULTS" "${folders[@]}"
