module "karpenter" {
  source  = "terraform-aws-modules/eks/aws//modules/karpenter"
  version = "~> 21.0"

  cluster_name = module.eks.cluster_name

  node_iam_role_name            = "${var.name}-decoders"
  node_iam_role_use_name_prefix = false
  iam_role_name                 = "${var.name}-karpenter"
  iam_role_use_name_prefix      = false

  tags = local.tags
}

resource "helm_release" "karpenter" {
  name       = "karpenter"
  namespace  = "kube-system"
  repository = var.charts.karpenter.repository
  chart      = "karpenter"
  version    = var.charts.karpenter.version

  values = [yamlencode({
    # Names are resolved on the way to AWS before the cluster's own DNS has a machine to run on.
    dnsPolicy = "Default"
    settings = {
      clusterName       = module.eks.cluster_name
      clusterEndpoint   = module.eks.cluster_endpoint
      interruptionQueue = module.karpenter.queue_name
    }
    controller = { env = [{ name = "AWS_REGION", value = var.region }] }
  })]

  # While it is taken away it needs a machine to run on.
  depends_on = [module.eks, module.karpenter]
}

# What machines decoders and further gateways get, and the volume of models. A chart, because Terraform would ask the cluster for the kinds of
# these objects before there is one. When it goes, its machines go first: Karpenter lets a pool go only without them.
resource "helm_release" "pools" {
  name             = "pools"
  namespace        = kubernetes_namespace_v1.starling.metadata[0].name
  chart            = "${path.module}/charts/pools"
  create_namespace = false
  timeout          = 900

  values = [yamlencode({
    cluster  = module.eks.cluster_name
    nodeRole = module.karpenter.node_iam_role_name
    tags     = local.tags
    decoders = {
      machine = module.sizing.sizing.decoder_machine
      # Twice what was worked out: a bound on what a mistake can cost, and room for a rollout.
      maxVcpu = 2 * module.sizing.sizing.decoder_nodes * module.sizing.sizing.decoder_vcpu
    }
    gateways = {
      machine = module.sizing.sizing.gateway_machine
      maxVcpu = module.release.gateways_at_most_vcpu
    }
    models = { volume = "${aws_efs_file_system.models.id}::${aws_efs_access_point.models.id}" }
  })]

  depends_on = [helm_release.karpenter, aws_efs_mount_target.models]
}
