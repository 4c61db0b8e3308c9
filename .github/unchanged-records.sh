#!/usr/bin/env bash
# Fails if a branch edits, renames or removes a published record, its packed scores, or a mark.
# usage: unchanged-records.sh FOLDER BASE
set -euo pipefail
changed=$(git -C "$1" diff --no-renames --name-status --diff-filter=a "$2...HEAD" -- leaderboards/records)
if [ -n "$changed" ]; then
  echo "Published files are never changed; take these changes back:"
  echo "$changed"
  exit 1
fi
