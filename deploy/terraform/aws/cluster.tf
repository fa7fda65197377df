module "sizing" {
  source = "../sizing"

  callers = var.callers
  model   = var.model
}

module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "~> 21.0"

  name               = var.name
  kubernetes_version = var.kubernetes_version

  vpc_id     = module.vpc.vpc_id
  subnet_ids = module.vpc.private_subnets

  endpoint_public_access                   = true
  endpoint_public_access_cidrs             = var.api_from
  enable_cluster_creator_admin_permissions = true

  # What would outlive the cluster: a key is deleted after a week at the earliest, and a log group is made anew by the last lines of a
  # cluster that goes. EKS encrypts secrets with a key of its own in any case.
  create_kms_key              = false
  encryption_config           = null
  enabled_log_types           = []
  create_cloudwatch_log_group = false

  # By Pod Identity alone.
  enable_irsa = false

  addons = {
    vpc-cni = {
      before_compute       = true
      configuration_values = jsonencode({ enableNetworkPolicy = "true" })
    }
    eks-pod-identity-agent = { before_compute = true }
    kube-proxy             = {}
    coredns                = {}
    metrics-server         = {}
    aws-efs-csi-driver     = {}
  }

  # On machines, their disks and interfaces, which the provider's default tags do not come to.
  tags = local.tags

  # The gateways that always stand, and what the cluster itself runs. Nothing scales it: decoders and further gateways are on Karpenter's
  # machines. Above desired_size is room for an upgrade.
  eks_managed_node_groups = {
    base = {
      ami_type       = "AL2023_x86_64_STANDARD"
      instance_types = [module.sizing.sizing.gateway_machine]
      min_size       = 2
      desired_size   = max(2, module.sizing.sizing.gateway_nodes)
      max_size       = max(4, 2 * module.sizing.sizing.gateway_nodes)
    }
  }

  node_security_group_tags = { "karpenter.sh/discovery" = var.name }

  # Nodes of Starling speak to each other on ports above 1024, UDP among them, which the recommended rules let through only for TCP.
  node_security_group_additional_rules = {
    nodes_udp = {
      description = "Gossip and audio between nodes"
      protocol    = "udp"
      from_port   = 7400
      to_port     = 7401
      type        = "ingress"
      self        = true
    }
  }
}

module "efs_identity" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "~> 2.0"

  name                      = "${var.name}-efs"
  attach_aws_efs_csi_policy = true

  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = "kube-system"
      service_account = "efs-csi-controller-sa"
    }
  }
}

module "load_balancer_identity" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "~> 2.0"

  name                            = "${var.name}-balancers"
  attach_aws_lb_controller_policy = true

  associations = {
    this = {
      cluster_name    = module.eks.cluster_name
      namespace       = "kube-system"
      service_account = "aws-load-balancer-controller"
    }
  }
}

# It makes the balancer of the chart's service, and takes it away when that goes.
resource "helm_release" "load_balancer" {
  name       = "aws-load-balancer-controller"
  namespace  = "kube-system"
  repository = var.charts.load_balancer.repository
  chart      = "aws-load-balancer-controller"
  version    = var.charts.load_balancer.version

  values = [yamlencode({
    clusterName    = module.eks.cluster_name
    region         = var.region
    vpcId          = module.vpc.vpc_id
    serviceAccount = { create = true, name = "aws-load-balancer-controller" }
    defaultTags    = local.tags
  })]

  # While it is taken away it needs a machine to run on.
  depends_on = [module.eks, module.load_balancer_identity]
}
