# What the workshop needs of Temporal Cloud: a namespace for each team, the Nexus endpoints between them, and an
# account for each worker that may touch its own namespace and no other.
#
# Left out on purpose: API keys. `temporalcloud_apikey` would write the key into Terraform's state, where everybody
# who may plan can read it. Make each key by hand for the account that an output names, and put it straight into the
# store that the workers read (../README.md). So this state holds no secret.

terraform {
  required_version = ">= 1.5"
  required_providers {
    temporalcloud = {
      source  = "temporalio/temporalcloud"
      version = "~> 1.5"
    }
  }
}

# The key of who applies this comes from TEMPORAL_CLOUD_API_KEY, never from a file.
provider "temporalcloud" {
  allowed_account_id = var.account_id
}

# --- namespaces: one a team, so that nobody's worker can read another team's histories ---

resource "temporalcloud_namespace" "orchestrator" {
  name           = "${var.prefix}-orchestrator"
  regions        = [var.region] # cannot be changed later
  api_key_auth   = true
  retention_days = var.retention_days
  namespace_lifecycle = {
    enable_delete_protection = true # the chats of people are in here
  }
}

resource "temporalcloud_namespace" "it" {
  name           = "${var.prefix}-it"
  regions        = [var.region]
  api_key_auth   = true
  retention_days = var.retention_days
  namespace_lifecycle = {
    enable_delete_protection = true
  }
}

resource "temporalcloud_namespace" "finance" {
  name           = "${var.prefix}-finance"
  regions        = [var.region]
  api_key_auth   = true
  retention_days = var.retention_days
  namespace_lifecycle = {
    enable_delete_protection = true
  }
}

# --- search attributes: a workflow that sets one that is not registered hangs ---

resource "temporalcloud_namespace_search_attribute" "session_owner" {
  namespace_id = temporalcloud_namespace.orchestrator.id
  name         = "SessionOwner"
  type         = "keyword"
}

resource "temporalcloud_namespace_search_attribute" "repair_status" {
  namespace_id = temporalcloud_namespace.orchestrator.id
  name         = "RepairStatus"
  type         = "keyword"
}

# --- Nexus endpoints: who may call a team. Here the server refuses all others; a dev server has no such list ---

resource "temporalcloud_nexus_endpoint" "it" {
  name = "${var.prefix}-it-nexus-endpoint" # unique in the account
  worker_target = {
    namespace_id = temporalcloud_namespace.it.id
    task_queue   = "it-task-queue"
  }
  allowed_caller_namespaces = [
    temporalcloud_namespace.orchestrator.id, # the chat agents
  ]
}

resource "temporalcloud_nexus_endpoint" "finance" {
  name = "${var.prefix}-finance-nexus-endpoint"
  worker_target = {
    namespace_id = temporalcloud_namespace.finance.id
    task_queue   = "finance-task-queue"
  }
  allowed_caller_namespaces = [
    temporalcloud_namespace.orchestrator.id, # the chat agents
  ]
}

# --- accounts: bound to one namespace for good, and no more than a worker needs there ---

resource "temporalcloud_service_account" "orchestrator" {
  name        = "${var.prefix}-orchestrator-worker"
  description = "Workers of chats and repairs, and whoever asks them."
  namespace_scoped_access = {
    namespace_id = temporalcloud_namespace.orchestrator.id
    permission   = "write"
  }
}

resource "temporalcloud_service_account" "it" {
  name        = "${var.prefix}-it-worker"
  description = "Worker and MCP server of the IT team."
  namespace_scoped_access = {
    namespace_id = temporalcloud_namespace.it.id
    permission   = "write"
  }
}

resource "temporalcloud_service_account" "finance" {
  name        = "${var.prefix}-finance-worker"
  description = "Worker and MCP server of the finance team."
  namespace_scoped_access = {
    namespace_id = temporalcloud_namespace.finance.id
    permission   = "write"
  }
}
