variable "region" {
  description = "Region of the bucket."
  type        = string
}

variable "name" {
  description = "Name of the cluster whose state it holds."
  type        = string
}

variable "owner" {
  description = "Tag on everything."
  type        = string
}

variable "environment" {
  description = "Tag on everything."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket."
  type        = string
}
