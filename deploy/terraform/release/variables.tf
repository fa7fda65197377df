variable "sizing" {
  description = "What ../sizing worked out."
  type = object({
    language           = string
    hosts_per_node     = number
    slots_per_host     = number
    threads_per_host   = number
    vcpu_of_a_node     = number
    memory_request_mib = number
    memory_limit_mib   = number
    decoder_nodes      = number
    gateway_nodes      = number
    gateway_vcpu       = number
    vcpu_of_a_gateway  = number
  })
}

variable "model" {
  description = "Model that is served."
  type        = string
}

variable "image" {
  description = "Starling's image, as REGISTRY/REPOSITORY:TAG."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9.-]+(:[0-9]+)?/[a-z0-9._/-]+:[A-Za-z0-9._-]+$", var.image))
    error_message = "image is \"${var.image}\"; it must be REGISTRY/REPOSITORY:TAG, such as 111122223333.dkr.ecr.eu-central-1.amazonaws.com/starling:0.1.0."
  }
}

variable "internal" {
  description = "Whether callers come from inside the network alone."
  type        = bool
}

variable "certificate_arn" {
  description = "Certificate that the balancer shows to callers; \"\" for none."
  type        = string

  validation {
    condition     = var.certificate_arn == "" || can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/", var.certificate_arn))
    error_message = "certificate_arn is \"${var.certificate_arn}\"; it must be that of a certificate in ACM, arn:aws:acm:REGION:ACCOUNT:certificate/ID, or \"\" for none."
  }
}

variable "decoders_at_least" {
  description = "Nodes that decode when nobody speaks."
  type        = number

  validation {
    condition     = var.decoders_at_least >= 1 && floor(var.decoders_at_least) == var.decoders_at_least
    error_message = "decoders_at_least is ${var.decoders_at_least}; it must be a whole number, 1 or more."
  }
}
