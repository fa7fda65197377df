variable "model" {
  description = "Model that callers are heard by."
  type        = string
  default     = "vosk-ko-small"

  validation {
    condition     = contains(keys(local.measured), var.model)
    error_message = "model is \"${var.model}\", of which nothing was measured; it must be one of ${join(", ", keys(local.measured))}. For another model give streams_per_vcpu and host_memory_mib, and leave this as it is."
  }
}

variable "callers" {
  description = "Callers who speak at once, at the busiest time."
  type        = number
  default     = 50

  validation {
    condition     = var.callers >= 1 && var.callers <= 100000 && floor(var.callers) == var.callers
    error_message = "callers is ${var.callers}; it must be a whole number from 1 to 100000."
  }
}

variable "idle_target" {
  description = "Decoders that stand idle beside those of the callers, for whoever calls next."
  type        = number
  default     = 5

  validation {
    condition     = var.idle_target >= 0 && floor(var.idle_target) == var.idle_target
    error_message = "idle_target is ${var.idle_target}; it must be a whole number, 0 or more."
  }
}

variable "utilization" {
  description = "Part of what was measured to hold that is planned with. Clouds' machines differ from each other by a third."
  type        = number
  default     = 0.7

  validation {
    condition     = var.utilization > 0 && var.utilization <= 1
    error_message = "utilization is ${var.utilization}; it must be above 0, and 1 at most."
  }
}

variable "spare_nodes" {
  description = "Decoder nodes that may be lost at once while all callers are still heard in time."
  type        = number
  default     = 1

  validation {
    condition     = var.spare_nodes >= 0 && floor(var.spare_nodes) == var.spare_nodes
    error_message = "spare_nodes is ${var.spare_nodes}; it must be a whole number, 0 or more."
  }
}

variable "streams_per_vcpu" {
  description = "Live streams that one vCPU holds; null for what was measured of the model."
  type        = number
  default     = null

  validation {
    condition     = var.streams_per_vcpu == null ? true : var.streams_per_vcpu > 0
    error_message = "streams_per_vcpu is ${coalesce(var.streams_per_vcpu, 0)}; it must be above 0, or null for what was measured."
  }
}

variable "host_memory_mib" {
  description = "Resident memory of one decoder host under load, in MiB; null for what was measured of the model."
  type        = number
  default     = null

  validation {
    condition     = var.host_memory_mib == null ? true : var.host_memory_mib > 0
    error_message = "host_memory_mib is ${coalesce(var.host_memory_mib, 0)}; it must be above 0, or null for what was measured."
  }
}

variable "hosts_per_node" {
  description = "Decoder hosts of one node. With two, the death of one keeps nobody waiting."
  type        = number
  default     = 2

  validation {
    condition     = var.hosts_per_node >= 1 && floor(var.hosts_per_node) == var.hosts_per_node
    error_message = "hosts_per_node is ${var.hosts_per_node}; it must be a whole number, 1 or more."
  }
}

variable "decoder_machine" {
  description = "Machine that one decoder node has to itself. Prices are list prices on demand in us-east-1, from memory of 2025: look yours up."
  type        = object({ name = string, vcpu = number, memory_mib = number, dollars_per_hour = number })
  default     = { name = "c6a.xlarge", vcpu = 4, memory_mib = 8192, dollars_per_hour = 0.153 }

  validation {
    condition     = var.decoder_machine.vcpu > local.system_vcpu
    error_message = "decoder_machine.vcpu is ${var.decoder_machine.vcpu}; it must be above ${local.system_vcpu}, which Kubernetes and the node's own part take."
  }
}

variable "gateway_machine" {
  description = "Machine of the managed group, for gateways and what the cluster itself runs."
  type        = object({ name = string, vcpu = number, memory_mib = number, dollars_per_hour = number })
  default     = { name = "m6a.large", vcpu = 2, memory_mib = 8192, dollars_per_hour = 0.0864 }
}

variable "other_dollars_per_hour" {
  description = "What the cluster costs whatever its size, by item: list prices on demand in us-east-1, from memory of 2025. Traffic is not in it."
  type        = map(number)
  default = {
    control_plane = 0.10
    nat_gateway   = 0.045
    load_balancer = 0.0225
  }
}
