"""Every script's header says what its code does: keys, arguments, replies, provisions, commands.

A rule is a function from a script to the untruths in its header. Each is shown planted untruths,
so that a rule that finds nothing cannot pass for a true header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import pytest

from gateway.adapters.redis_store.scripts import NAMES, lua_folder
from gateway.ports.quota_store import EntitleCode, ReserveCode, SettleCode

SCRIPT_LABELS = ("purpose", "promise", "prelude", "KEYS", "ARGV", "RETURNS", "invariants", "cost")
PRELUDE_LABELS = ("purpose", "promise", "PROVIDES", "invariants", "cost")


@dataclass(frozen=True)
class Lua:
    """One file of `lua/`: its header by label, and its code without comments and strings."""

    text: str
    prelude: str = ""

    @property
    def is_script(self) -> bool:
        return self.text.startswith("#!lua")

    @cached_property
    def header_lines(self) -> list[str]:
        lines = self.text.splitlines()[1 if self.is_script else 0 :]
        end = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
        return lines[:end]

    @cached_property
    def labels(self) -> list[str]:
        return [found[1] for line in self.header_lines if (found := _LABEL.match(line))]

    @cached_property
    def header(self) -> Mapping[str, str]:
        """The text under each label. A line that opens with a number opens a new item."""
        told: dict[str, str] = {}
        label = ""
        for line in self.header_lines:
            if found := _LABEL.match(line):
                label, told[found[1]] = found[1], found[2]
            else:
                more = line.removeprefix("--").strip()
                joint = " · " if _ITEM.match(more) else " "
                told[label] = told.get(label, "") + joint + more
        return told

    @cached_property
    def code(self) -> str:
        """The code, its comments gone and each string a plain ''."""
        return _STRING.sub("''", self._without_comments)

    @cached_property
    def commands(self) -> set[str]:
        """The Redis commands in the code, and in those functions of the prelude that it calls."""
        text = self._without_comments
        for name, body in functions(Lua(self.prelude)._without_comments).items():
            if re.search(rf"\b{name}\(", self.code):
                text += body
        return set(re.findall(r"redis\.p?call\('(\w+)'", text))

    @cached_property
    def _without_comments(self) -> str:
        return "\n".join(line.split("--")[0] for line in self.text.splitlines())

    def items(self, label: str) -> dict[int, str]:
        """The numbered items under a label; under RETURNS, the codes."""
        told = self.header.get(label, "").rpartition("Codes: ")[2]
        found = [_ITEM.match(item.strip()) for item in told.split(" · ")]
        return {int(item[1]): item[2] for item in found if item}


_LABEL = re.compile(r"^-- ([A-Za-z]+): (.*)$")
_ITEM = re.compile(r"^(-?\d+) (.+)$")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'")
_FUNCTION = re.compile(r"^local function (\w+)\(([^)]*)\)\n(.*?)^end$", re.MULTILINE | re.DOTALL)

Rule = Callable[[Lua], Iterator[str]]


def functions(text: str) -> dict[str, str]:
    """The functions at the top level of a Lua text, with their bodies."""
    return {found[1]: found[3] for found in _FUNCTION.finditer(text)}


# --- the rules --------------------------------------------------------------------------------


def fixed_order(lua: Lua) -> Iterator[str]:
    wanted = [*(SCRIPT_LABELS if lua.is_script else PRELUDE_LABELS)]
    if lua.is_script and "prelude" not in lua.labels:
        wanted.remove("prelude")
    if lua.labels != wanted:
        yield f"the header has {lua.labels}, expected {wanted}"
    if any(not text.strip() for text in lua.header.values()):
        yield "a part of the header is empty"


def numbered_inputs(lua: Lua) -> Iterator[str]:
    """KEYS and ARGV: as many as are read, each of them read, under no index but a number."""
    for label in ("KEYS", "ARGV") if lua.is_script else ():
        told = sorted(lua.items(label))
        read = sorted({int(index) for index in re.findall(rf"{label}\[(\d+)\]", lua.code)})
        if told != list(range(1, len(told) + 1)) or told != read:
            yield f"{label}: the header numbers {told}, the code reads {read}"
        if re.search(rf"\b{label}\b(?!\[\d+\])", lua.code):
            yield f"{label} is read other than by a number"


def numbered_codes(lua: Lua) -> Iterator[str]:
    told, returned = set(lua.items("RETURNS")), returned_codes(lua)
    if lua.is_script and told != returned:
        yield f"codes: the header says {sorted(told)}, the code returns {sorted(returned)}"


def returned_codes(lua: Lua) -> set[int]:
    """The numbers that may stand first in a reply."""
    codes: set[int] = set()
    for reply in re.findall(r"return (?:answer\(|\{) ?([^,})\n]+)", lua.code):
        codes.update(int(number) for number in re.findall(r"(?<![\w.])-?\d+", reply))
    return codes


def counted_fields(lua: Lua) -> Iterator[str]:
    """The longest reply has as many fields as the header lists."""
    if not lua.is_script:
        return
    told = lua.header["RETURNS"].split(". Codes:")[0].split(",")
    sent = max(top_level_items(text) for text in re.findall(r"return \{(.*?)\}", lua.code, re.S))
    if len(told) != sent:
        yield f"the header lists {len(told)} fields, the code returns {sent}"


def top_level_items(text: str) -> int:
    while "(" in text:
        text = re.sub(r"\([^()]*\)", "", text)
    return text.count(",") + 1


def provided_functions(lua: Lua) -> Iterator[str]:
    if lua.is_script:
        return
    told = set(re.findall(r"(\w+)\(([^)]*)\)", lua.header["PROVIDES"]))
    there = {(found[1], found[2]) for found in _FUNCTION.finditer(lua.text)}
    for name, parameters in sorted(told ^ there):
        yield f"{name}({parameters}) stands only in the {'header' if name in told else 'code'}"
    constants = set(re.findall(r"\b[A-Z]{2,}\b", lua.header["PROVIDES"]))
    if constants != set(re.findall(r"^local ([A-Z]+) =", lua.text, re.MULTILINE)):
        yield "the constants of header and code differ"


def named_prelude(lua: Lua) -> Iterator[str]:
    """A prelude is named if and only if something of it is used."""
    provided = {*functions(lua.prelude), "NONE"}
    used = {name for name in provided if re.search(rf"\b{name}\b", lua.code)}
    if lua.is_script and bool(used) != ("prelude" in lua.header):
        yield f"uses {sorted(used)} of the prelude, names it: {'prelude' in lua.header}"


def named_commands(lua: Lua) -> Iterator[str]:
    told = set(re.findall(r"\b[A-Z]{3,}\b", lua.header.get("cost", "")))
    if lua.commands != told:
        yield f"cost: the header says {sorted(told)}, the code calls {sorted(lua.commands)}"


def no_key_made(lua: Lua) -> Iterator[str]:
    if "qg:" in lua.text:
        yield "makes a key's name; names come in KEYS only"


RULES: tuple[Rule, ...] = (
    fixed_order,
    numbered_inputs,
    numbered_codes,
    counted_fields,
    provided_functions,
    named_prelude,
    named_commands,
    no_key_made,
)

# --- the files --------------------------------------------------------------------------------

PRELUDE = (lua_folder() / "account.lua").read_text()
FILES = {path.stem: Lua(path.read_text(), PRELUDE) for path in lua_folder().glob("*.lua")}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", sorted(FILES))
def test_the_header_is_true(name: str, rule: Rule) -> None:
    assert list(rule(FILES[name])) == []


def test_every_file_is_a_script_or_the_prelude() -> None:
    assert {name for name, lua in FILES.items() if lua.is_script} == set(NAMES)
    assert set(FILES) == {*NAMES, "account"}


@pytest.mark.parametrize(
    ("name", "codes"),
    [("reserve", ReserveCode), ("settle", SettleCode), ("entitle", EntitleCode)],
)
def test_the_port_knows_exactly_the_codes_of_the_header(
    name: str, codes: type[ReserveCode] | type[SettleCode] | type[EntitleCode]
) -> None:
    assert {int(code) for code in codes} == set(FILES[name].items("RETURNS"))


# --- the rules themselves -----------------------------------------------------------------------

GIVEN_PRELUDE = """\
-- purpose: a prelude.
-- promise: reads once.
-- PROVIDES: NONE, clock_ms(given),
--           total(a, b)
-- invariants: none.
-- cost: one TIME.

local NONE = ''

local function clock_ms(given)
  return redis.call('TIME')
end

local function total(a, b)
  return a + b
end
"""
GIVEN = """\
#!lua flags=allow-oom
-- purpose: an example.
-- promise: it is true.
-- prelude: account
-- KEYS: 1 meta · 2 account
-- ARGV: 1 rid · 2 kind: one | other
--       3 now ms, else ''
-- RETURNS: code, rid, sum (of 2
--          things). Codes: 1 done · 2 done before
--          -1 missing · 0 neither
-- invariants: none.
-- cost: TIME, 1 HGET. No loop.

local meta_key, account_key = KEYS[1], KEYS[2] -- not KEYS[3]
local rid, kind, now = ARGV[1], ARGV[2], clock_ms(ARGV[3])
local function answer(code, sum)
  return { code, rid, math.max(sum, 0) }
end
if kind == 'return { 9 }' then
  return answer(-1, redis.call('HGET', meta_key, account_key))
end
return answer(rid and 1 or now and 2 or 0, 12)
"""
PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (fixed_order, "-- purpose: an example.\n-- promise: it is true.", "-- promise: it is true."),
    (fixed_order, "-- invariants: none.\n-- cost:", "-- cost: 1\n-- invariants:"),
    (fixed_order, "-- promise: it is true.", "-- promise:  "),
    (fixed_order, "#!lua flags=allow-oom\n", "-- an opening word\n"),
    (numbered_inputs, "1 meta · 2 account", "1 meta"),
    (numbered_inputs, "1 meta · 2 account", "1 meta · 2 account · 3 holds"),
    (numbered_inputs, "1 meta · 2 account", "1 meta · 3 account"),
    (numbered_inputs, "KEYS[1], KEYS[2]", "KEYS[1], KEYS[1]"),
    (numbered_inputs, "--       3 now ms, else ''\n", ""),
    (numbered_inputs, "ARGV[1], ARGV[2]", "unpack(ARGV), ARGV[1], ARGV[2]"),
    (numbered_codes, " · 2 done before", ""),
    (numbered_codes, "-1 missing", "-1 missing · -2 gone"),
    (numbered_codes, "answer(-1,", "answer(-3,"),
    (numbered_codes, "rid and 1 or now and 2 or 0", "rid and 1 or 2"),
    (counted_fields, "code, rid, sum", "code, sum"),
    (counted_fields, "{ code, rid,", "{ code, rid, rid,"),
    (named_prelude, "-- prelude: account\n", ""),
    (named_prelude, "clock_ms(ARGV[3])", "ARGV[3]"),
    (named_commands, "TIME, 1 HGET", "1 HGET"),
    (named_commands, "TIME, 1 HGET", "TIME"),
    (named_commands, "redis.call('HGET'", "redis.pcall('XADD'"),
    (no_key_made, "'return { 9 }'", "'qg:{00}:m'"),
)
PLANTED_IN_PRELUDE: tuple[tuple[Rule, str, str], ...] = (
    (provided_functions, "clock_ms(given),", "clock_ms(given), other(),"),
    (provided_functions, "-- PROVIDES: NONE, clock_ms(given),", "-- PROVIDES: NONE,"),
    (provided_functions, "function total(a, b)", "function total(a, b, c)"),
    (provided_functions, "PROVIDES: NONE,", "PROVIDES: NONE, ALL,"),
    (provided_functions, "local NONE =", "local NOTHING ="),
    (fixed_order, "-- PROVIDES:", "-- KEYS:"),
    (named_commands, "one TIME", "nothing"),
)


def test_a_true_header_passes_every_rule() -> None:
    for lua in (Lua(GIVEN, GIVEN_PRELUDE), Lua(GIVEN_PRELUDE)):
        assert [untruth for rule in RULES for untruth in rule(lua)] == []


@pytest.mark.parametrize(("rule", "told", "untrue"), PLANTED)
def test_a_planted_untruth_is_found(rule: Rule, told: str, untrue: str) -> None:
    assert GIVEN.count(told) == 1
    assert list(rule(Lua(GIVEN.replace(told, untrue), GIVEN_PRELUDE)))


@pytest.mark.parametrize(("rule", "told", "untrue"), PLANTED_IN_PRELUDE)
def test_an_untruth_planted_in_a_prelude_is_found(rule: Rule, told: str, untrue: str) -> None:
    assert GIVEN_PRELUDE.count(told) == 1
    assert list(rule(Lua(GIVEN_PRELUDE.replace(told, untrue))))


def test_every_rule_is_shown_an_untruth() -> None:
    assert {rule for rule, _, _ in PLANTED + PLANTED_IN_PRELUDE} == set(RULES)
