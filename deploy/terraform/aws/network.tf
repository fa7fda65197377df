data "aws_availability_zones" "here" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = slice(data.aws_availability_zones.here.names, 0, min(3, length(data.aws_availability_zones.here.names)))

  tags = {
    owner              = var.owner
    environment        = var.environment
    "starling-cluster" = var.name
  }
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "~> 6.0"

  name = var.name
  cidr = var.cidr
  azs  = local.zones

  # A sixteenth for each zone's pods: 4,094 addresses of the default network.
  private_subnets = [for index, _ in local.zones : cidrsubnet(var.cidr, 4, index)]
  public_subnets  = [for index, _ in local.zones : cidrsubnet(var.cidr, 8, 200 + index)]

  # One for all zones. Callers don't pass it; while its zone is lost, no image can be pulled.
  enable_nat_gateway = true
  single_nat_gateway = true

  public_subnet_tags  = { "kubernetes.io/role/elb" = "1" }
  private_subnet_tags = { "kubernetes.io/role/internal-elb" = "1", "karpenter.sh/discovery" = var.name }
}
