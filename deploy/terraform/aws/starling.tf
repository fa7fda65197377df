resource "kubernetes_namespace_v1" "starling" {
  metadata {
    name = "starling"
    labels = {
      "pod-security.kubernetes.io/enforce" = "restricted"
      # A gateway counts as ready only when the balancer sends it callers, so that a rollout never takes the last one that has some.
      "elbv2.k8s.aws/pod-readiness-gate-inject" = "enabled"
    }
  }

  depends_on = [module.eks]
}

# The first keys: one to speak with, and an operator's. They are drawn, written to the cluster and nowhere else: not to the state. New ones:
# raise data_wo_revision.
ephemeral "random_password" "key" {
  length  = 43
  special = false
}

ephemeral "random_password" "operator" {
  length  = 43
  special = false
}

resource "kubernetes_secret_v1" "keys" {
  metadata {
    name      = module.release.keys_secret
    namespace = kubernetes_namespace_v1.starling.metadata[0].name
  }

  data_wo = {
    key      = ephemeral.random_password.key.result
    operator = ephemeral.random_password.operator.result
    keys = join(",", [
      "first=sha256:${sha256(ephemeral.random_password.key.result)}",
      "operations=sha256:${sha256(ephemeral.random_password.operator.result)}",
    ])
  }
  # 2: the operator's came to the first one.
  data_wo_revision = 2
}

# A warning: a certificate of one's own may be in values.
check "in_clear" {
  assert {
    condition     = var.internal || var.certificate_arn != ""
    error_message = "internal is false and certificate_arn is empty: keys and audio at 8080 and 2700 go over the internet in clear. Give certificate_arn, or tls.secretName in values and have callers come to 8443 and 2743."
  }
}

module "release" {
  source = "../release"

  sizing            = module.sizing.sizing
  model             = var.model
  image             = var.image == "" ? "${aws_ecr_repository.starling.repository_url}:${var.image_tag}" : var.image
  internal          = var.internal
  certificate_arn   = var.certificate_arn
  decoders_at_least = var.decoders_at_least
}

resource "helm_release" "starling" {
  name      = "starling"
  namespace = kubernetes_namespace_v1.starling.metadata[0].name
  chart     = "${path.module}/../../../k8s/helm/starling"
  # The first machine for decoders, its images, and the model.
  timeout = 900

  values = concat([file("${path.module}/../../../k8s/helm/starling/values-eks.yaml"), module.release.values], var.values)

  depends_on = [helm_release.pools, helm_release.load_balancer, kubernetes_secret_v1.keys]
}
