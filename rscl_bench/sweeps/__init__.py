"""Many runs: what they are, checked before the first, and a process for each."""
