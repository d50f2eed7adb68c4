#!/bin/sh
# Namespaces, search attributes and Nexus endpoints, as `workshop up` makes them on its own server. May run again;
# what is there is left as it is. The server is the one that TEMPORAL_ADDRESS names.
set -eu

namespace() {
  temporal operator namespace describe -n "$1" >/dev/null 2>&1 ||
    temporal operator namespace create -n "$1" --retention 7d
}

endpoint() {
  temporal operator nexus endpoint get --name "$1" >/dev/null 2>&1 ||
    temporal operator nexus endpoint create --name "$1" --target-namespace "$2" --target-task-queue "$3"
}

namespace default
namespace it-namespace
namespace finance-namespace
temporal operator search-attribute create -n default --name SessionOwner --type Keyword
temporal operator search-attribute create -n default --name RepairStatus --type Keyword
endpoint it-nexus-endpoint it-namespace it-task-queue
endpoint finance-nexus-endpoint finance-namespace finance-task-queue
