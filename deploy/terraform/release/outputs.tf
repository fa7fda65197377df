output "values" {
  description = "Values of the chart, over those of values-eks.yaml."
  value       = yamlencode(local.values)
}

output "keys_secret" {
  description = "Name of the secret with key, operator (the keys) and keys (their hashes, by tenant)."
  value       = local.keys_secret
}

output "gateways_at_most_vcpu" {
  description = "The most vCPU that gateways' machines can come to."
  value       = local.gateways_at_most * var.sizing.gateway_vcpu
}
