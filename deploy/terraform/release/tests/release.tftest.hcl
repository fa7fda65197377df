# What the chart is told, for sizes as ../sizing gives them.

variables {
  model             = "moonshine-tiny-en"
  image             = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/team/starling:0.1.0"
  internal          = true
  certificate_arn   = ""
  decoders_at_least = 2
  sizing = {
    language           = "English"
    hosts_per_node     = 2
    slots_per_host     = 14
    threads_per_host   = 2
    vcpu_of_a_node     = 3.5
    memory_request_mib = 870
    memory_limit_mib   = 6144
    decoder_nodes      = 5
    gateway_nodes      = 2
    gateway_vcpu       = 2
    vcpu_of_a_gateway  = 1.05
  }
}

run "inside_the_network_as_long_as_nothing_else_is_said" {
  command = plan
  assert {
    condition = yamldecode(output.values).service.annotations == {
      "service.beta.kubernetes.io/aws-load-balancer-scheme" = "internal"
    }
    error_message = "the balancer is to be internal, and nothing is said of TLS:\n${output.values}"
  }
  assert {
    condition     = yamldecode(output.values).image == { registry = "111122223333.dkr.ecr.eu-central-1.amazonaws.com", repository = "team/starling", tag = "0.1.0" }
    error_message = "the image is to be taken apart:\n${output.values}"
  }
}

run "with_a_certificate_every_port_for_callers_speaks_tls" {
  command = plan
  variables {
    internal        = false
    certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/0"
  }
  assert {
    condition     = yamldecode(output.values).service.annotations["service.beta.kubernetes.io/aws-load-balancer-scheme"] == "internet-facing"
    error_message = "the balancer is to face the internet:\n${output.values}"
  }
  assert {
    condition     = yamldecode(output.values).service.annotations["service.beta.kubernetes.io/aws-load-balancer-ssl-ports"] == "8080,2700"
    error_message = "both ports are to speak TLS:\n${output.values}"
  }
}

run "the_table_is_the_peak" {
  command = plan
  assert {
    condition     = yamldecode(output.values).decoder.actuator == { enabled = true, minReplicas = 2, maxReplicas = 5 }
    error_message = "decoders are to be scaled from 2 to the table's 5:\n${output.values}"
  }
  # 10 pods at most, each on a machine of 2 vCPU.
  assert {
    condition     = yamldecode(output.values).gateway.hpa.maxReplicas == 10 && output.gateways_at_most_vcpu == 20
    error_message = "10 gateways on 20 vCPU at most:\n${output.values}"
  }
}

run "no_more_stand_than_there_can_be" {
  command = plan
  variables {
    decoders_at_least = 9
  }
  assert {
    condition     = yamldecode(output.values).decoder.actuator.minReplicas == 5
    error_message = "5 is the most there can be:\n${output.values}"
  }
}

run "an_english_recording_is_not_compared_with_what_another_model_hears" {
  command = plan
  variables {
    model = "vosk-ko-small"
    sizing = {
      language           = "Korean"
      hosts_per_node     = 2
      slots_per_host     = 19
      threads_per_host   = 2
      vcpu_of_a_node     = 3.5
      memory_request_mib = 2660
      memory_limit_mib   = 6144
      decoder_nodes      = 3
      gateway_nodes      = 2
      gateway_vcpu       = 2
      vcpu_of_a_gateway  = 1.05
    }
  }
  assert {
    condition     = yamldecode(output.values).test.phrases == [" "]
    error_message = "a blank between words is all that the test may ask for:\n${output.values}"
  }
}

run "an_image_without_a_tag" {
  command = plan
  variables {
    image = "registry.example/starling"
  }
  expect_failures = [var.image]
}

run "a_certificate_of_another_kind" {
  command = plan
  variables {
    certificate_arn = "arn:aws:iam::111122223333:server-certificate/x"
  }
  expect_failures = [var.certificate_arn]
}
