#!/usr/bin/env bash
# Evaluate in several processes, one per GPU: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]
source "$(dirname "$0")/_dist.sh" test "CONFIG CHECKPOINT" "$@"
