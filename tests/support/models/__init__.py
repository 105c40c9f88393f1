"""Model servers on loopback that play a script, for real engine programs: no account, no network, no model.

with Models() as models:
    script = models.script(uses("Bash", {"command": "make"}, Tokens(1200, 30)), says("done"))
    ...                    # give a program script.anthropic_url or script.openai_url
    script.turns[0].tools  # what reached the model

Whoever does not bring the credential that a script expects is refused, as the provider would: a program that has lost
its key on the way fails every test, and is not answered as if nothing were amiss.
"""

from __future__ import annotations

from support.models.server import Models, Script, Seen
from support.models.step import Call, Step, fails, refused, says, uses

__all__ = ["Call", "Models", "Script", "Seen", "Step", "fails", "refused", "says", "uses"]
