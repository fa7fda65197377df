output "sizing" {
  description = "What so many callers take."
  value = {
    model            = "${var.model} (${local.of_model.engine}, ${local.of_model.language})"
    language         = local.of_model.language
    callers          = var.callers
    slots            = local.slots
    decoding_vcpu    = local.decoding_vcpu
    slots_per_node   = local.admitted_per_node
    slots_per_host   = local.slots_per_host
    hosts_per_node   = var.hosts_per_node
    threads_per_host = local.threads_per_host
    vcpu_of_a_node   = local.node_vcpu
    # A host is replaced when it passes its budget, 2 GiB, and its successor is loaded first.
    memory_request_mib = local.memory_per_node_mib - local.system_memory_mib + local.node_memory_mib
    memory_limit_mib   = var.decoder_machine.memory_mib - 2 * local.system_memory_mib
    decoder_nodes      = local.decoder_nodes
    decoder_machine    = var.decoder_machine.name
    decoder_vcpu       = var.decoder_machine.vcpu
    gateway_nodes      = local.gateway_nodes
    gateway_machine    = var.gateway_machine.name
    gateway_vcpu       = var.gateway_machine.vcpu
    vcpu_of_a_gateway  = local.vcpu_of_a_gateway
    dollars_per_month  = floor(local.dollars_per_month + 0.5)
  }

  precondition {
    condition     = local.slots_per_host >= 1
    error_message = "A host of ${var.decoder_machine.name} would have no slot: ${local.slots_per_node} streams for ${var.hosts_per_node} hosts. Take fewer hosts or a larger machine."
  }

  precondition {
    condition     = local.is_enough_memory
    error_message = "${var.hosts_per_node} hosts of ${local.host_memory_mib} MiB and ${local.system_memory_mib} MiB for the system take ${local.memory_per_node_mib} MiB, but ${var.decoder_machine.name} has ${var.decoder_machine.memory_mib} MiB. Take fewer hosts or a larger machine."
  }
}

output "older" {
  description = "What the first of the older systems took for as many callers, and with which model. Only its machines compare: the models differ."
  value = {
    model             = local.older.model
    callers           = var.callers
    machines          = local.older_machines
    vcpu              = local.older_machines * local.older.machine_vcpu
    dollars_per_month = floor(local.older_machines * local.older.dollars_per_node + 0.5)
  }
}

output "table" {
  description = "Both, as a table to be read."
  value = join("\n", [for row in [
    ["what", "Starling", "the older system"],
    ["model", "${var.model} (${local.of_model.engine}, ${local.of_model.language})", local.older.model],
    ["callers at once", var.callers, var.callers],
    ["decoders", local.slots, var.callers],
    ["vCPU for decoding", local.decoding_vcpu, local.older_machines * local.older.machine_vcpu],
    ["machines that decode", "${local.decoder_nodes} x ${var.decoder_machine.name}", "${local.older_machines} of ${local.older.machine_vcpu} cores"],
    ["other machines", "${local.gateway_nodes} x ${var.gateway_machine.name}", "in the above"],
    ["dollars a month", floor(local.dollars_per_month + 0.5), floor(local.older_machines * local.older.dollars_per_node + 0.5)],
  ] : format("%-22s %-40s %s", row...)])
}
