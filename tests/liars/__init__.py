"""Those who would be paid for what was not trained, or keep others from being paid: each one part of a real program
replaced, on a stage of real processes. docs/audits.md, Liars.

    python -m tests.liars list                 all kinds (./scripts/demo --cheat list)
    python -m tests.liars KIND [KIND ...]      a run of each; `all`. --brief: what is ruled on is not finished elsewhere
    python -m tests.liars as KIND COMMAND ...  `gpumarket COMMAND ...` with that part replaced
"""
