#!/usr/bin/env bash
# Train in several processes, one per GPU: tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]
source "$(dirname "$0")/_dist.sh" train "CONFIG" "$@"
