# Sizes -> values of Starling's chart, beside those of values-eks.yaml. No provider, no resource: what comes out can be rendered anywhere.

locals {
  image = regex("^(?P<registry>[^/]+)/(?P<repository>.+):(?P<tag>[^:]+)$", var.image)

  # Of one secret, so that the keys and their hashes are always of the same draw.
  keys_secret = "starling-keys"

  # Twice the peak that was worked out, and some at least: gateways are small, and the loss of one is to be taken up by new ones.
  gateways_at_most = max(10, 2 * var.sizing.gateway_nodes)

  # The table is the peak. In between there are as many as the cluster says it needs.
  decoders_at_least = min(var.decoders_at_least, var.sizing.decoder_nodes)

  scheme = { "service.beta.kubernetes.io/aws-load-balancer-scheme" = var.internal ? "internal" : "internet-facing" }

  # TLS ends at the balancer; behind it the network is the cluster's own. The controller's default policy still takes TLS 1.0.
  tls = var.certificate_arn == "" ? {} : {
    "service.beta.kubernetes.io/aws-load-balancer-ssl-cert"               = var.certificate_arn
    "service.beta.kubernetes.io/aws-load-balancer-ssl-ports"              = "8080,2700"
    "service.beta.kubernetes.io/aws-load-balancer-ssl-negotiation-policy" = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  }

  values = {
    image = { registry = local.image.registry, repository = local.image.repository, tag = local.image.tag }
    # Drawn by the chart at the first install.
    cluster = { secret = { existingSecret = "" } }
    auth = {
      # Its keys are in the secret, too.
      tenants           = [{ name = "operations", operator = true }]
      keysSecret        = { name = local.keys_secret }
      operatorKeySecret = { name = local.keys_secret, key = "operator" }
    }
    models = {
      serve = [{
        name    = var.model
        hosts   = var.sizing.hosts_per_node
        slots   = var.sizing.slots_per_host
        threads = var.sizing.threads_per_host
        prewarm = 2
      }]
      pvc = { existingClaim = "starling-models" }
    }
    service = { annotations = merge(local.scheme, local.tls) }
    # Off as long as values say nothing else.
    quic = { annotations = local.scheme }
    gateway = {
      replicas = var.sizing.gateway_nodes
      # More of them as soon as one takes what it was sized with.
      hpa = { minReplicas = var.sizing.gateway_nodes, maxReplicas = local.gateways_at_most, cpuPercent = 100 }
      resources = {
        requests = { cpu = "${floor(1000 * var.sizing.vcpu_of_a_gateway)}m", memory = "1024Mi" }
        limits   = { memory = "2048Mi" }
      }
      tolerations = [{ key = "starling/pool", operator = "Equal", value = "gateways", effect = "NoSchedule" }]
    }
    decoder = {
      replicas = var.sizing.decoder_nodes
      actuator = { enabled = true, minReplicas = local.decoders_at_least, maxReplicas = var.sizing.decoder_nodes }
      # One pod fills a machine.
      resources = {
        requests = { cpu = "${floor(1000 * var.sizing.vcpu_of_a_node)}m", memory = "${var.sizing.memory_request_mib}Mi" }
        limits   = { memory = "${var.sizing.memory_limit_mib}Mi" }
      }
    }
    # It would be a machine more, beside the spare one.
    balloon = { enabled = false }
    test = merge(
      { keySecret = { name = local.keys_secret, key = "key" } },
      # The image's recording is English. A model of another language is to hear words in it, whichever.
      var.sizing.language == "English" ? {} : { phrases = [" "] },
    )
  }
}
