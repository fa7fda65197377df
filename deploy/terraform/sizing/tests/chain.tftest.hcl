# The chain of the arithmetic, with numbers that were worked out by hand beside each.

run "fifty_korean_callers" {
  command = plan

  # 55 decoders; 16 x 0.7 = 11.2 streams a vCPU; 3.5 vCPU of a machine: 39 streams, 19 for each of two hosts, 38 admitted.
  # 55 / 38 is 2 machines, and a spare one. 730 h x (3 x 0.153 + 2 x 0.0864 + 0.1675) = 583.49.
  assert {
    condition     = output.sizing.slots == 55
    error_message = "50 callers and 5 idle decoders are 55 slots, not ${output.sizing.slots}"
  }
  assert {
    condition     = output.sizing.decoding_vcpu == 4.92
    error_message = "55 slots at 11.2 a vCPU take 4.92 vCPU, not ${output.sizing.decoding_vcpu}"
  }
  assert {
    condition     = output.sizing.slots_per_node == 38 && output.sizing.slots_per_host == 19
    error_message = "a node has 2 hosts of 19 slots, not ${output.sizing.slots_per_node} and ${output.sizing.slots_per_host}"
  }
  assert {
    condition     = output.sizing.decoder_nodes == 3 && output.sizing.gateway_nodes == 2
    error_message = "2 nodes and a spare one, and 2 gateways; not ${output.sizing.decoder_nodes} and ${output.sizing.gateway_nodes}"
  }
  assert {
    condition     = output.sizing.dollars_per_month == 583
    error_message = "583 dollars a month, not ${output.sizing.dollars_per_month}"
  }
}

run "fifty_english_callers" {
  command = plan
  variables {
    model = "moonshine-tiny-en"
  }

  # 12 x 0.7 = 8.4 streams a vCPU; 29 of a machine, 14 for each host, 28 admitted: 2 machines and a spare one.
  assert {
    condition     = output.sizing.slots_per_node == 28 && output.sizing.decoder_nodes == 3 && output.sizing.decoding_vcpu == 6.55
    error_message = "28 slots a node, 3 nodes, 6.55 vCPU; not ${output.sizing.slots_per_node}, ${output.sizing.decoder_nodes}, ${output.sizing.decoding_vcpu}"
  }
  assert {
    condition     = output.sizing.model == "moonshine-tiny-en (Moonshine, English)"
    error_message = "the model is to be named, not ${output.sizing.model}"
  }
}

run "the_spare_node_can_be_left_out" {
  command = plan
  variables {
    spare_nodes = 0
    idle_target = 0
    callers     = 38
  }
  assert {
    condition     = output.sizing.decoder_nodes == 1
    error_message = "38 callers fit on one node, not on ${output.sizing.decoder_nodes}"
  }
}

run "one_caller_more_takes_another_node" {
  command = plan
  variables {
    spare_nodes = 0
    idle_target = 0
    callers     = 39
  }
  assert {
    condition     = output.sizing.decoder_nodes == 2
    error_message = "39 callers take a second node, not ${output.sizing.decoder_nodes} in all"
  }
}

run "figures_of_your_own_are_taken" {
  command = plan
  variables {
    streams_per_vcpu = 2
    utilization      = 1
    callers          = 15
    idle_target      = 0
    spare_nodes      = 0
    hosts_per_node   = 1
  }

  # 3.5 vCPU x 2: 7 streams a node; 15 callers take 3.
  assert {
    condition     = output.sizing.slots_per_node == 7 && output.sizing.decoder_nodes == 3 && output.sizing.decoding_vcpu == 7.5
    error_message = "7 slots a node, 3 nodes, 7.5 vCPU; not ${output.sizing.slots_per_node}, ${output.sizing.decoder_nodes}, ${output.sizing.decoding_vcpu}"
  }
}

run "gateways_grow_with_callers" {
  command = plan
  variables {
    callers = 10000
  }

  # 10,000 x 9.3125 / 3600 = 25.9 vCPU; a machine gives (2 - 0.5) x 0.7 = 1.05: 25, and a spare one.
  assert {
    condition     = output.sizing.gateway_nodes == 26
    error_message = "10,000 callers take 26 gateways, not ${output.sizing.gateway_nodes}"
  }
}
