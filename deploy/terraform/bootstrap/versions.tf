terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }

  # A file for each bucket; ../starling says which.
  backend "local" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      owner              = var.owner
      environment        = var.environment
      "starling-cluster" = var.name
    }
  }
}
