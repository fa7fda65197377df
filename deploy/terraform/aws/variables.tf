variable "region" {
  description = "Where all of it stands."
  type        = string
}

variable "name" {
  description = "Name of the cluster, and the beginning of all names."
  type        = string
  default     = "starling"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.name))
    error_message = "name is \"${var.name}\"; it must be 1 to 20 of a-z, 0-9 and -, with a letter first: names of roles are made of it, which are short."
  }
}

variable "owner" {
  description = "Tag on everything: who pays, and who is asked."
  type        = string
  default     = "unknown"
}

variable "environment" {
  description = "Tag on everything: what it is for."
  type        = string
  default     = "trial"
}

variable "callers" {
  description = "Callers at once, at the busiest time. ../sizing says what that takes."
  type        = number
  default     = 50
}

variable "decoders_at_least" {
  description = "Nodes that decode when nobody speaks. Beyond them there are as many as the cluster says it needs, up to those for all callers."
  type        = number
  default     = 2
}

variable "model" {
  description = "Model that is served: one that ../sizing knows the figures of. Further ones go into values."
  type        = string
  default     = "moonshine-tiny-en"
}

variable "image_tag" {
  description = "Tag of Starling's image in the registry that is made here."
  type        = string
  default     = "0.1.0"
}

variable "image" {
  description = "A ready image of Starling, as REGISTRY/REPOSITORY:TAG, with another of the same tag and \"-fetch\" beside it; \"\" for that in the registry that is made here. Machines have to be able to pull both without a secret."
  type        = string
  default     = ""
}

variable "kubernetes_version" {
  description = "Kubernetes of the cluster. The chart asks for 1.30 or newer; from 1.35 on pods know their zone. EKS's standard support of 1.35 ends on 27 March 2027 (that of 1.33 did on 29 July 2026); an hour of the cluster costs more after it."
  type        = string
  default     = "1.35"
}

variable "cidr" {
  description = "Addresses of the network. A pod takes one of its own."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.cidr, 8, 0)) && try(tonumber(split("/", var.cidr)[1]) <= 18, false)
    error_message = "cidr is \"${var.cidr}\"; it must be a network such as 10.40.0.0/16, of 18 bits at most."
  }
}

variable "api_from" {
  description = "Networks that may reach the cluster's API. It asks for credentials in any case."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "internal" {
  description = "Whether callers come from inside the network alone. Set to false together with certificate_arn: without one keys and audio go over the internet in clear."
  type        = bool
  default     = true
}

variable "certificate_arn" {
  description = "Certificate in ACM that the balancer shows to callers, at 8080 and 2700, which are wss:// and https:// then; \"\" for none."
  type        = string
  default     = ""
}

variable "charts" {
  description = "Where charts of others come from, and their versions. Karpenter supports Kubernetes 1.35 from 1.9 on."
  type = object({
    karpenter     = object({ repository = string, version = string })
    load_balancer = object({ repository = string, version = string })
  })
  default = {
    karpenter     = { repository = "oci://public.ecr.aws/karpenter", version = "1.11.1" }
    load_balancer = { repository = "https://aws.github.io/eks-charts", version = "1.13.0" }
  }
}

variable "values" {
  description = "Values of Starling's chart as YAML, each over the ones before; they win over those that are set here."
  type        = list(string)
  default     = []
}
