"""What the control connector asks of a team: the link is one."""

from vastar_runtime.workers.link import Link
from vastar_runtime.workers.team import Team, TeamError


def test_a_link_is_a_team():
    team: type[Team] = Link
    names = {name for name in vars(Team) if not name.startswith("_")}
    assert names == {"status", "metrics", "reload", "drain"}
    assert all(callable(getattr(team, name)) for name in names)
    assert issubclass(TeamError, Exception)
