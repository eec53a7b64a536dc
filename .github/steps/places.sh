#!/usr/bin/env bash
# Where things are, and what the cached entries are called, as outputs of the step. An entry's name says the
# system, podwire's version, the job, a digest of what it was asked for and of what it builds, and the run: so
# none is ever replaced, and what is restored is the nearest that there is, in this order. In none of these is
# a `:`, so no job or version is taken for another whose name goes on.
set -euo pipefail
# A cache is only found under the same paths, and GitHub writes ./podwire into that of a local action.
action=$(cd "$ACTION" && pwd)

# Blank lines of an input say nothing.
asked() {
  local input
  for input in "$REPLACE" "$ARGS" "$COMPARE" "$BASE" "$HEAD"; do
    sed '/^$/d' <<<"$input"
    echo
  done
  cd "$action"
  find Cargo.lock rust-toolchain.toml images harness/probe -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
}
digest=$(asked | sha256sum)
digest=${digest:0:16}

echo "cache=$TEMP/podwire-cache"
echo "said=$TEMP/podwire-said"
echo "target=$action/target"
echo "results=$action/target/podwire/latest"
echo "entry=${PREPARED:-$SYSTEM:$VERSION:$JOB:$digest:$RUN}"
if [ -n "$PREPARED" ]; then exit 0; fi
echo 'older<<.'
printf 'podwire-%s:\n' "$SYSTEM:$VERSION:$JOB:$digest" "$SYSTEM:$VERSION:$JOB" "$SYSTEM:$VERSION" "$SYSTEM"
echo .
# Another version's build is of no use: this one compiles in a folder of its own name.
echo 'older-cargo<<.'
printf 'podwire-cargo-%s:\n' "$SYSTEM:$VERSION:$JOB:$digest" "$SYSTEM:$VERSION:$JOB" "$SYSTEM:$VERSION"
echo .
