# What the older system is known to have taken has to come out of the comparison as it is known.

run "its_standing_fifty" {
  command = plan
  variables {
    callers = 50
  }
  assert {
    condition     = output.older.machines == 17 && output.older.dollars_per_month == 2625 && output.older.vcpu == 68
    error_message = "17 machines of 4 cores and 2,625 dollars; not ${output.older.machines}, ${output.older.vcpu} cores, ${output.older.dollars_per_month}"
  }
}

run "its_peak_of_a_hundred" {
  command = plan
  variables {
    callers = 100
  }
  assert {
    condition     = output.older.machines == 33
    error_message = "33 machines at the peak of 100 callers, not ${output.older.machines}"
  }
}

run "it_had_its_standing_machines_for_fewer_callers_too" {
  command = plan
  variables {
    callers = 3
  }
  assert {
    condition     = output.older.machines == 17
    error_message = "17 machines stood whoever called, not ${output.older.machines}"
  }
}

run "both_models_are_named" {
  command = plan
  assert {
    condition     = strcontains(output.table, "vosk-ko-small (Vosk, Korean)") && strcontains(output.table, "Kaldi nnet3")
    error_message = "the table compares different models and has to say so:\n${output.table}"
  }
  assert {
    condition     = strcontains(output.table, "3 x c6a.xlarge") && strcontains(output.table, "17 of 4 cores") && strcontains(output.table, "2625")
    error_message = "the table has to have both systems' machines and the older one's price:\n${output.table}"
  }
}
