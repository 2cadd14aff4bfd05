"""Side-by-side benchmarks: `python -m benchmarks` lists them.

The rules, each of which keeps a figure honest:

- Figures are ratios against a peer that did the same work in the same run. An absolute figure is
  told together with the machine and with what else the machine was doing (`others`, in cores).
- Load, upstream and the measured process are three processes. Load in the server's process would
  share its interpreter and its caches; an upstream in the load's process would wait for it.
- Contestants take turns inside every round, each in a fresh process, and the median over the rounds
  is told, never the best one. A change of the machine's speed then meets all of them.
- Warming up is part of every run and is not counted; nothing is carried over from another run.
- Every answer is checked: its id, its class, and of samples every byte. A fast wrong answer does
  not count.
- The runtime runs as users run it: `python -m vastar_runtime serve`, its defaults, its call line
  written to a file for every call. Switching off what a peer leaves on would be cheating.
- CPU time is that of the whole measured process, system calls included, over the counted time.
- Speed is shown here and never asserted by a test.

What is claimed ("at least 6,000 requests/s") is printed as held or not held and sets the exit code.
"""
