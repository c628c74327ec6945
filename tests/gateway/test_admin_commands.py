"""The command line as a client of the admin API: near, far, and where no gateway runs."""

from __future__ import annotations

import getpass
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.admin_port import AdminPort
from tests.gateway.running_gateway import MakeGateway, RunningGateway

TOKEN = "QUOTA_ADMIN_TOKEN"


def new_id(kind: str = "user") -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def table(gateway: RunningGateway, *words: str) -> list[str]:
    """What people read; every line fits a terminal of 80 columns."""
    done = gateway.command(*words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80, done.stdout
    return lines


def test_people_read_tables_and_programs_read_json(gateway: RunningGateway) -> None:
    user = new_id()
    made = gateway.cli("user", "create", user, "--tier", "free", "--email", f"{user}@example.org")
    assert (made["email"], made["limit_tokens"]) == (f"{user}@example.org", 100_000)
    head, line = table(gateway, "user", "list", "--prefix", user)
    assert head.split() == ["user", "tier", "state", "team", "email"]
    assert line.split() == [user, "free", "active", "-", f"{user}@example.org"]
    assert "limit tokens      100,000" in table(gateway, "user", "show", user)
    changed = table(gateway, "user", "set-tier", user, "lite")
    assert any(line.startswith("Now:          From the next call on") for line in changed)


def test_what_was_used_and_keys_are_tables_too(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("lite")
    assert gateway.chat(key, "Hello").status == 200
    gateway.ledger_rows(user, 1)
    head, line = table(gateway, "usage", user, "--by", "model")
    assert " ".join(head.split()) == "period model calls prompt output charged adjusted GBP"
    assert line.split()[1:3] == ["gpt-4o-mini", "1"]
    made = gateway.cli("key", "create", user)
    listed = table(gateway, "key", "list", user)
    assert [line.split()[0] for line in listed][1] == made["key_id"]
    assert len(listed) == 3


def test_a_team_is_shown_with_who_is_in_it(gateway: RunningGateway) -> None:
    user, _ = gateway.new_user("free")
    team = new_id("team")
    gateway.cli("team", "create", team, "--tier", "full")
    assert gateway.cli("team", "add", team, user)["team"] == team
    assert table(gateway, "team", "show", team)[-1].split()[0] == user
    assert [each["user"] for each in gateway.cli("team", "show", team)["members"]] == [user]
    gateway.cli("team", "remove", team, user)
    assert table(gateway, "team", "show", team)[-1] == "nobody is in this team"


def test_limits_are_set_one_by_one_and_left_to_the_tier_again(gateway: RunningGateway) -> None:
    user, _ = gateway.new_user("free")
    words = ("user", "set-limits", user)
    limits = gateway.cli(*words, "tokens=5000", "rpm=none", "models=gpt-4o,gpt-4o-mini")["limits"]
    assert limits == {"tokens": 5000, "rpm": None, "models": ["gpt-4o", "gpt-4o-mini"]}
    changed = gateway.cli(*words, "rpm=tier", "gbp=1.50")
    assert changed["limits"] == {"tokens": 5000, "gbp": "1.50", "models": ["gpt-4o", "gpt-4o-mini"]}
    assert changed["limit_tokens"] == 5000
    for wrong in ("rpm", "speed=9", "rpm=fast"):
        done = gateway.command(*words, wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert wrong in done.stderr
    done = gateway.command(*words, "gbp=free")
    assert done.returncode == 1
    assert "gbp" in done.stderr


def test_blocks_addresses_and_ends_by_command(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("free")
    assert gateway.cli("user", "block", user, "--reason", "unpaid")["state"] == "blocked"
    assert gateway.chat(key, "Hello").status == 403
    assert gateway.cli("user", "unblock", user)["state"] == "active"
    assert gateway.cli("user", "set-email", user, "a@example.org")["email"] == "a@example.org"
    assert gateway.cli("user", "set-email", user)["email"] is None
    assert gateway.cli("user", "delete", user)["state"] == "disabled"
    assert gateway.chat(key, "Hello").status == 401


def test_far_away_a_token_says_who_and_how_much(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _ = gateway.new_user("free")
    far = ("user", "set-tier", user, "lite", "--url", gateway.admin)
    done = gateway.command(*far)
    assert (done.returncode, TOKEN in done.stderr) == (2, True)
    made = gateway.cli("token", "create", "console", "--scope", "read", "--scope", "write")
    assert made["scopes"] == ["read", "write"]
    monkeypatch.setitem(gateway.environment, TOKEN, made["token"])
    assert gateway.cli(*far)["tier"] == "lite"
    (line,) = AdminPort(gateway).audit(user=user, what="set_tier")
    assert line["who"] == f"token:{made['token_id']}", "a token speaks for itself alone"
    money = gateway.command("user", "set-used", user, "0", "--reason", "x", "--url", gateway.admin)
    assert money.returncode == 1
    assert "needs a token with the scope money" in money.stderr
    assert gateway.cli("token", "revoke", made["token_id"])["revoked_at"]
    refused = gateway.command(*far)
    assert refused.returncode == 1
    assert "was revoked" in refused.stderr
    listed = gateway.command("token", "list").stdout
    assert made["token_id"] in listed
    assert made["token"] not in listed
    nobody = gateway.command("user", "list", "--url", "http://127.0.0.1:9")
    assert (nobody.returncode, len(nobody.stderr.splitlines())) == (1, 1)
    other = gateway.command("user", "list", "--url", gateway.ops)
    assert "does not answer as the admin API does" in other.stderr


def test_without_a_gateway_a_command_answers_itself_by_the_same_way(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway()
    user = new_id()
    assert gateway.cli("user", "create", user)["used_tokens"] == 0
    key = gateway.cli("key", "create", user)["key"]
    assert gateway.cli("user", "set-used", user, "70", "--reason", "x")["used_tokens"] == 70
    gateway.nothing_runs()
    gateway.start()
    assert gateway.chat(key, "Hello").status == 200
    assert gateway.cli("user", "show", user)["adjusted_tokens"] == 70
    lines = AdminPort(gateway).audit(user=user)
    assert [line["what"] for line in lines] == ["adjust", "create_key", "create_user"]
    assert {line["who"] for line in lines} == {f"cli:{getpass.getuser()}"}
    gateway.stop()


# --- moving in -----------------------------------------------------------------------------


def write(place: Path, *lines: str) -> str:
    path = place / f"{new_id('people')}.csv"
    path.write_text("id,tier,email,zone,used_tokens\n" + "\n".join(lines) + "\n")
    return str(path)


def test_a_list_of_people_moves_in_once(gateway: RunningGateway, tmp_path: Path) -> None:
    ann, bob, cleo = new_id("ann"), new_id("bob"), new_id("cleo")
    gateway.cli("user", "create", cleo, "--tier", "full")
    file = write(
        tmp_path,
        f"{ann},lite,{ann}@example.org,Europe/London,12345",
        f"{bob},,,,",
        f"{cleo},free,,,70",
    )
    said = gateway.command("user", "import", file)
    assert said.returncode == 0
    assert said.stdout.splitlines() == [
        f"line 2: create {ann}, book 12,345 tokens as used",
        f"line 3: create {bob}",
        f"line 4: there already {cleo}, book 70 tokens as used; tier: is full, not free; left so",
        "",
        "2 created, 1 there already, 0 lines wrong, 12,415 tokens booked as used",
        "Nothing was done: --apply does it.",
    ]
    assert gateway.cli("user", "list", "--prefix", ann) == []
    first = gateway.cli("user", "import", file, "--apply")
    assert (first["applied"], first["created"], first["booked_tokens"]) == (True, 2, 12_415)
    shown = gateway.cli("user", "show", ann)
    assert (shown["tier"], shown["zone"], shown["used_tokens"]) == ("lite", "Europe/London", 12345)
    assert shown["email"] == f"{ann}@example.org"
    assert gateway.cli("user", "show", cleo)["tier"] == "full"
    again = gateway.cli("user", "import", file, "--apply")
    assert (again["created"], again["there_already"], again["booked_tokens"]) == (0, 3, 0)
    assert gateway.cli("user", "show", ann) == shown
    assert len(gateway.ledger_rows(ann, 1)) == 1
    other = write(tmp_path, f"{ann},lite,,,9")
    assert "12,345 were booked before, not 9" in gateway.command("user", "import", other).stdout


def test_lines_that_are_not_in_order_are_told_and_nothing_is_done(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    good, twice = new_id(), new_id()
    file = write(
        tmp_path,
        f"{good},free,,,1",
        "a b,gold,nobody,Mars/Base,-1",
        f"{twice},,,,",
        f"{twice},,,,",
        "short,free",
        "odd,gold,nobody,Mars/Base,0",
    )
    done = gateway.command("user", "import", file, "--apply", "--json")
    assert done.returncode == 1
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["applied"] is False
    said = [(error["line"], error["message"]) for error in told["errors"]]
    assert said == [
        (3, "used_tokens '-1': expected a whole number from 0 to 10^12"),
        (5, f"id '{twice}': it stands in line 4 already"),
        (6, "expected as many cells as the head has"),
        (7, "email 'nobody': expected one like name@example.org"),
        (7, "tier 'gold': expected one of free, lite, full"),
        (7, "zone 'Mars/Base': expected a name such as Europe/London"),
    ]
    assert gateway.command("user", "show", good).returncode == 1
    head = tmp_path / "head.csv"
    head.write_text("user;tier\n")
    done = gateway.command("user", "import", str(head))
    assert done.returncode == 2
    assert "line 1: expected a head of id, tier" in done.stderr
