"""Caps under fire: many processes reserve, spend, overspend, die and settle at once, on one real ledger file.

`worker.py` is one of the processes, `books.py` how they keep account (ours, and two naive ways), `judge.py` replays
what the ledger's chain says and compares it with what was truly spent, `__main__.py` runs it all.
"""
