#!/usr/bin/env bash
# actions/cache without its service: an entry is a folder in $STORE/caches. As there, one is found under
# the same paths only, the newest of those whose key begins as asked; one that is there stays as it is.
set -euo pipefail
paths=()
while IFS= read -r path; do
  if [ -n "$path" ]; then paths+=("$path"); fi
done <<<"$PATHS"
# On GitHub's machines each job has the same folders; act gives it new ones.
job=$(dirname "$RUNNER_TEMP")
version=$(printf '%s\n' "${paths[@]#"$job"}" | sha256sum)
entries=$STORE/caches/${version:0:16}
mkdir -p "$entries"

found() {
  if [ -e "$entries/$KEY" ]; then
    echo "$KEY"
    return
  fi
  local prefix entry
  while IFS= read -r prefix; do
    while IFS= read -r entry; do
      if [ -n "$prefix" ] && [[ $entry == "$prefix"* ]]; then
        echo "$entry"
        return
      fi
    done < <(ls -t "$entries")
  done <<<"$RESTORE_KEYS"
}

# Links instead of copies: whoever replaces a file makes a new one.
case $1 in
restore)
  entry=$(found)
  echo "restore $KEY: ${entry:-nothing}" >>"$STORE/caches.log"
  if [ -z "$entry" ]; then exit 0; fi
  # Whether it is the very one.
  echo "cache-hit=$([ "$entry" = "$KEY" ] && echo true || echo false)" >>"$GITHUB_OUTPUT"
  for number in "${!paths[@]}"; do
    if [ -e "$entries/$entry/$number" ]; then
      mkdir -p "${paths[number]}"
      cp -al "$entries/$entry/$number/." "${paths[number]}"
    fi
  done
  ;;
save)
  if [ -e "$entries/$KEY" ]; then exit 0; fi
  echo "save $KEY" >>"$STORE/caches.log"
  mkdir "$entries/$KEY"
  for number in "${!paths[@]}"; do
    if [ -e "${paths[number]}" ]; then cp -al "${paths[number]}" "$entries/$KEY/$number"; fi
  done
  ;;
esac
