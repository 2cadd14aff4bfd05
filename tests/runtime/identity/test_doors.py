"""Connections are counted by user or address, and whoever is one too many stays outside."""

import pytest

from vastar_runtime.config import ServerConfig
from vastar_runtime.identity.doors import Doors, name_of


def test_one_user_cannot_take_the_places_of_another() -> None:
    doors = Doors(max_in_all=4, max_per_user=2)
    first, second, third = (doors.enter("uid 1") for _ in range(3))
    assert first is second is not None
    assert third is None
    others = [doors.enter(f"uid {uid}") for uid in (2, 3, 4)]
    assert others[0] is not others[1], "each has a count of its own"
    assert [other is None for other in others] == [False, False, True]
    doors.leave("uid 1")
    assert doors.enter("uid 1") is first
    for who in ("uid 1", "uid 1", "uid 2", "uid 3"):
        doors.leave(who)
    assert not doors._inside, "what nobody holds is forgotten"


def test_limits_change_and_who_is_inside_stays() -> None:
    doors = Doors.of(ServerConfig(max_connections=9, max_connections_per_user=8))
    guest = doors.enter("uid 1")
    assert guest is not None
    assert guest.max_held_bytes == ServerConfig().max_held_bytes_per_user
    doors.configure(
        ServerConfig(max_connections=1, max_connections_per_user=1, max_held_bytes_per_user=1 << 20)
    )
    assert guest.max_held_bytes == 1 << 20
    assert not doors.enter("uid 2")
    doors.leave("uid 1")
    assert doors.enter("uid 2")


@pytest.mark.parametrize(
    ("uid", "address", "name"),
    [
        (0, None, "uid 0"),
        (None, None, "unknown"),
        (None, "nonsense", "unknown"),
        (None, "192.0.2.7", "address 192.0.2.7"),
        (None, "2001:db8:1:2:3:4:5:6", "network 2001:db8:1:2::/64"),
        (None, "2001:db8:1:2:ffff::1", "network 2001:db8:1:2::/64"),
        (None, "fe80::1%eth0", "network fe80::/64"),
        (None, "::ffff:192.0.2.7", "address ::ffff:192.0.2.7"),
    ],
)
def test_whose_a_connection_is(uid: int | None, address: str | None, name: str) -> None:
    assert name_of(uid, address).replace("::ffff:c000:207", "::ffff:192.0.2.7") == name
