# Callers -> slots -> vCPU -> nodes -> dollars a month. Arithmetic alone: no provider, no resource.

locals {
  # What was measured of Starling, and where it is written down. Streams are live ones whose 95th percentile from the end of speech to
  # the final stayed under 300 ms, on a machine of 2 vCPU that ran the clients as well (bench/results/2026-11-24.json, cases "streams" and
  # "english": "held with p95 < 300 ms"; with three nodes and copies the same, 2026-11-25-overhead.json). Memory is that of a host after
  # the load of that many streams (2026-11-25-overhead.json, "memory of the host, after the load").
  measured = {
    vosk-ko-small     = { streams = 32, vcpu = 2, host_memory_mib = 1202, language = "Korean", engine = "Vosk" }
    moonshine-tiny-en = { streams = 24, vcpu = 2, host_memory_mib = 307, language = "English", engine = "Moonshine" }
  }

  # The first of the older systems, as it was run. Its model was a Kaldi nnet3 model of its own, behind kaldi-gstreamer-server, one process
  # for each caller; which files that were is not known here, and no word error rate of it is.
  older = {
    model            = "Kaldi nnet3 (its own), one worker process for each caller"
    machine_vcpu     = 4
    standing         = { callers = 50, machines = 17, dollars_per_month = 2625 }
    peak             = { callers = 100, machines = 33 }
    dollars_per_node = 2625 / 17
  }

  # Of each machine, for the kubelet, network and volume drivers. An estimate.
  system_vcpu       = 0.5
  system_memory_mib = 1024

  # The node's own process, under load 20 to 33 MiB (2026-11-25-overhead.json), and room for copies and recordings.
  node_memory_mib = 256

  # CPU that a gateway takes for a second of a caller's audio, both its part as owner and as keeper: 6.75 s and 2.56 s of the owner's and the
  # keeper's own for an hour of audio (2026-11-25-overhead.json). The same for both models within 3 %.
  gateway_vcpu_per_caller = (6.75 + 2.5625) / 3600

  # Memory of a caller's session: 43.56 KiB of its own (2026-11-24.json, "an idle session"), and 15 s of audio that is not final yet, the
  # longest segment, at 16 kHz and 16 bits. Once with its owner, once with its copy.
  session_memory_mib = 2 * (43.56 / 1024 + 15 * 16000 * 2 / 1048576)

  # Connections that the chart lets one gateway have (listen.maxConnections).
  connections_per_gateway = 2048

  # Gateways that keep each other's copies: two at least, or the loss of one would lose what it held. Of more than that, one is spare.
  gateways_at_least = 2

  hours_per_month = 730

  of_model         = local.measured[var.model]
  streams_per_vcpu = coalesce(var.streams_per_vcpu, local.of_model.streams / local.of_model.vcpu)
  host_memory_mib  = coalesce(var.host_memory_mib, local.of_model.host_memory_mib)

  slots = var.callers + var.idle_target

  decoding_vcpu = ceil(local.slots / (local.streams_per_vcpu * var.utilization) * 100) / 100

  node_vcpu            = var.decoder_machine.vcpu - local.system_vcpu
  slots_per_node       = floor(local.node_vcpu * local.streams_per_vcpu * var.utilization)
  slots_per_host       = floor(local.slots_per_node / var.hosts_per_node)
  admitted_per_node    = local.slots_per_host * var.hosts_per_node
  threads_per_host     = ceil(local.node_vcpu / var.hosts_per_node)
  memory_per_node_mib  = var.hosts_per_node * local.host_memory_mib + local.system_memory_mib
  is_enough_memory     = local.memory_per_node_mib <= var.decoder_machine.memory_mib
  decoder_nodes_needed = ceil(local.slots / max(local.admitted_per_node, 1))
  decoder_nodes        = local.decoder_nodes_needed + var.spare_nodes

  gateway_vcpu         = var.callers * local.gateway_vcpu_per_caller
  gateway_memory_mib   = var.callers * local.session_memory_mib
  vcpu_of_a_gateway    = (var.gateway_machine.vcpu - local.system_vcpu) * var.utilization
  gateway_nodes_cpu    = ceil(local.gateway_vcpu / local.vcpu_of_a_gateway)
  gateway_nodes_memory = ceil(local.gateway_memory_mib / (var.gateway_machine.memory_mib / 2))
  gateway_nodes_links  = ceil(var.callers / local.connections_per_gateway)
  gateway_nodes        = max(local.gateways_at_least, 1 + max(local.gateway_nodes_cpu, local.gateway_nodes_memory, local.gateway_nodes_links))

  dollars_per_month = local.hours_per_month * (
    local.decoder_nodes * var.decoder_machine.dollars_per_hour +
    local.gateway_nodes * var.gateway_machine.dollars_per_hour +
    sum(concat([0], values(var.other_dollars_per_hour)))
  )

  # The older system's machines for as many callers: between its two known points they grow in a straight line, and beyond too.
  older_per_caller = (local.older.peak.machines - local.older.standing.machines) / (local.older.peak.callers - local.older.standing.callers)
  older_machines = ceil(max(
    local.older.standing.machines,
    local.older.standing.machines + (var.callers - local.older.standing.callers) * local.older_per_caller,
  ))
}
