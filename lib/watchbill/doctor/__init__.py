"""What `watchbill doctor` looks at. One module a subject; each check is a function of a `Look` that yields findings.

A check of a *column* (`columns.STEPS`) is run in the person's shell and again as the scheduler runs a firing; one of
the *host* (`once.CHECKS`) once. To look at one more thing: one more function, and its line there.
"""
