#!/usr/bin/env bash
# actions/upload-artifact without its service: what is in folders, without what lines like `!FOLDER/**/*.END`
# name, goes to $STORE/artifacts. As there, a run has a name once, unless somebody overwrites it, and files
# forget that they are programs.
set -euo pipefail
to=$STORE/artifacts/$GITHUB_RUN_ID/$NAME
if [ "$OVERWRITE" = true ]; then rm -rf "$to"; fi
if [ -e "$to" ]; then
  echo "the run has an artifact $NAME already" >&2
  exit 1
fi
without=()
while IFS= read -r path; do
  case $path in
  '!'*) without+=("${path##*/}") ;;
  ?*) if [ -d "$path" ]; then mkdir -p "$to" && cp -a "${path%/}/." "$to"; fi ;;
  esac
done <<<"$PATHS"
if [ ! -e "$to" ]; then
  echo "no files were found for the artifact $NAME"
  [ "$NONE_FOUND" = warn ]
  exit
fi
for name in ${without[@]+"${without[@]}"}; do find "$to" -name "$name" -delete; done
find "$to" -type f -exec chmod a-x {} +
