import pytest, time
from support import real
from support.models import Models, says, Step, Call
from watchbill.engines.base import Tokens
@pytest.mark.parametrize("n",["claude","codex"])
def test_x(tmp_path,n):
    def call(i):
        return Call("exec_command",{"cmd":f"touch t{i}"}) if n=="codex" else Call("Bash",{"command":f"touch t{i}","description":"x"})
    with Models() as m:
        s=m.script(says("hello") if False else real.calls(n,"true"),Step(calls=tuple(call(i) for i in range(6)),pause_s=2.0),says("done"))
        d=real.run_real(tmp_path,n,s,cost_micro=5_000_000, tokens=1_000_000, request_micro=1_000_000)
    print(n,d.verdict,d.stopped_by,d.limit,d.cost_micro,d.basis,len(s.turns),d.duration_s, d.message)
