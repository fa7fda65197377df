# What can't be, and has to be said before anything is bought.

run "an_unknown_model" {
  command = plan
  variables {
    model = "vosk-ko-smal"
  }
  expect_failures = [var.model]
}

run "no_callers" {
  command = plan
  variables {
    callers = 0
  }
  expect_failures = [var.callers]
}

run "half_a_caller" {
  command = plan
  variables {
    callers = 1.5
  }
  expect_failures = [var.callers]
}

run "more_than_all_of_a_machine" {
  command = plan
  variables {
    utilization = 1.1
  }
  expect_failures = [var.utilization]
}

run "a_machine_without_a_core_to_decode_on" {
  command = plan
  variables {
    decoder_machine = { name = "tiny", vcpu = 0.5, memory_mib = 4096, dollars_per_hour = 0.01 }
  }
  expect_failures = [var.decoder_machine]
}

# 6 hosts x 1,202 MiB and the system's GiB are more than 8,192 MiB.
run "more_memory_than_the_machine_has" {
  command = plan
  variables {
    hosts_per_node = 6
  }
  expect_failures = [output.sizing]
}

run "hosts_without_a_slot" {
  command = plan
  variables {
    streams_per_vcpu = 0.5
    utilization      = 1
  }
  expect_failures = [output.sizing]
}
