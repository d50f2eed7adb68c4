# What each program has to find in its environment, besides TEMPORAL_API_KEY: `environment["it"]` for the IT team's
# worker and MCP server, and so on. Names are those that workshop_lib/settings.py reads.

output "environment" {
  description = "Environment of each team's programs. Holds no secret."
  value = {
    orchestrator = {
      TEMPORAL_ADDRESS   = temporalcloud_namespace.orchestrator.endpoints.grpc_address
      TEMPORAL_NAMESPACE = temporalcloud_namespace.orchestrator.id
      IT_NAMESPACE       = temporalcloud_namespace.it.id
      FINANCE_NAMESPACE  = temporalcloud_namespace.finance.id
      IT_ENDPOINT        = temporalcloud_nexus_endpoint.it.name
      FINANCE_ENDPOINT   = temporalcloud_nexus_endpoint.finance.name
    }
    it = {
      TEMPORAL_ADDRESS = temporalcloud_namespace.it.endpoints.grpc_address
      IT_NAMESPACE     = temporalcloud_namespace.it.id
      IT_QUEUE         = temporalcloud_nexus_endpoint.it.worker_target.task_queue
    }
    finance = {
      TEMPORAL_ADDRESS  = temporalcloud_namespace.finance.endpoints.grpc_address
      FINANCE_NAMESPACE = temporalcloud_namespace.finance.id
      FINANCE_QUEUE     = temporalcloud_nexus_endpoint.finance.worker_target.task_queue
    }
  }
}

output "service_accounts" {
  description = "Whose key each team's programs need. Make it outside of Terraform."
  value = {
    orchestrator = temporalcloud_service_account.orchestrator.id
    it           = temporalcloud_service_account.it.id
    finance      = temporalcloud_service_account.finance.id
  }
}
