variable "account_id" {
  description = "The account that this may change, such as a1b2c. Another account's key does nothing."
  type        = string
}

variable "region" {
  description = "Where all namespaces live. Near the workers; a region cannot be changed later."
  type        = string
  default     = "aws-eu-central-1"
}

variable "prefix" {
  description = "What all names begin with, so that several workshops share an account."
  type        = string
  default     = "workshop"
}

variable "retention_days" {
  description = "How long a finished workflow can be looked at."
  type        = number
  default     = 7 # as on the workshop's own server
}
