resource "kubernetes_namespace_v1" "starling" {
  metadata {
    name   = "starling"
    labels = { "pod-security.kubernetes.io/enforce" = "restricted" }
  }

  depends_on = [module.eks]
}

# The first key. It is drawn, written to the cluster and nowhere else: not to the state. A new one: raise data_wo_revision.
ephemeral "random_password" "key" {
  length  = 43
  special = false
}

resource "kubernetes_secret_v1" "keys" {
  metadata {
    name      = "starling-keys"
    namespace = kubernetes_namespace_v1.starling.metadata[0].name
  }

  data_wo = {
    key  = ephemeral.random_password.key.result
    keys = "first=sha256:${sha256(ephemeral.random_password.key.result)}"
  }
  data_wo_revision = 1
}

resource "helm_release" "starling" {
  name      = "starling"
  namespace = kubernetes_namespace_v1.starling.metadata[0].name
  chart     = "${path.module}/../../../k8s/helm/starling"
  # The first machine for decoders, its images, and the model.
  timeout = 900

  values = concat([
    file("${path.module}/../../../k8s/helm/starling/values-eks.yaml"),
    yamlencode({
      image = {
        registry   = split("/", aws_ecr_repository.starling.repository_url)[0]
        repository = aws_ecr_repository.starling.name
        tag        = var.image_tag
      }
      # Drawn by the chart at the first install.
      cluster = { secret = { existingSecret = "" } }
      auth    = { keysSecret = { name = kubernetes_secret_v1.keys.metadata[0].name } }
      models = {
        serve = [{
          name    = var.model
          hosts   = module.sizing.sizing.hosts_per_node
          slots   = module.sizing.sizing.slots_per_host
          threads = module.sizing.sizing.threads_per_host
          prewarm = 2
        }]
        pvc = { existingClaim = "starling-models" }
      }
      service = {
        annotations = {
          "service.beta.kubernetes.io/aws-load-balancer-scheme" = var.internal ? "internal" : "internet-facing"
        }
      }
      gateway = {
        replicas = module.sizing.sizing.gateway_nodes
        hpa = {
          minReplicas = module.sizing.sizing.gateway_nodes
          maxReplicas = max(10, 2 * module.sizing.sizing.gateway_nodes)
        }
      }
      decoder = {
        replicas = module.sizing.sizing.decoder_nodes
        # One pod fills a machine.
        resources = {
          requests = {
            cpu    = "${floor(1000 * module.sizing.sizing.vcpu_of_a_node)}m"
            memory = "${module.sizing.sizing.memory_request_mib}Mi"
          }
          limits = { memory = "${module.sizing.sizing.memory_limit_mib}Mi" }
        }
      }
      # It would be a machine more, beside the spare one.
      balloon = { enabled = false }
    }),
  ], var.values)

  depends_on = [helm_release.pools, helm_release.load_balancer]
}
