"""Every script's header says what its code does: keys, arguments, replies, provisions, commands.

A rule is a function from a script to the untruths in its header. Each is shown planted untruths,
so that a rule that finds nothing cannot pass for a true header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import pytest

from gateway.adapters.redis_store.scripts import NAMES, lua_folder
from gateway.core.quota.entitle import EntitleCode, FinishCode
from gateway.core.quota.reserve import ReserveCode
from gateway.core.quota.settle import SettleCode

SCRIPT_LABELS = ("purpose", "promise", "prelude", "KEYS", "ARGV", "RETURNS", "invariants", "cost")
PRELUDE_LABELS = ("purpose", "promise", "PROVIDES", "invariants", "cost")


@dataclass(frozen=True)
class Lua:
    """One file of `lua/`: its header by label, and its code without comments and strings.

    `others` are all preludes there are, by their names.
    """

    text: str
    others: Mapping[str, str] = field(default_factory=dict)

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
    def provided(self) -> dict[str, set[str]]:
        """What each prelude provides: its functions and constants at the top level."""
        return {name: set(functions(text)) | constants(text) for name, text in self.others.items()}

    @cached_property
    def used(self) -> set[str]:
        """The preludes of which something is used, here or by what is used of another."""
        code, found = self.code, set[str]()
        while more := {
            name
            for name, names in self.provided.items()
            if name not in found and any(re.search(rf"\b{each}\b", code) for each in names)
        }:
            found |= more
            code += "".join(self._reached(name, code) for name in more)
        return found if self.is_script else set()

    @cached_property
    def commands(self) -> set[str]:
        """The Redis commands in the code, and in those functions of preludes that it comes to."""
        return set(re.findall(r"redis\.p?call\('(\w+)'", self.with_reached))

    @cached_property
    def with_reached(self) -> str:
        """The code with strings; of a script, with the functions of preludes that it comes to."""
        text, before = self._without_comments, ""
        while text != before:
            before = text
            text = self._without_comments + "".join(
                self._reached(name, before) for name in self.others if self.is_script
            )
        return text

    def _reached(self, prelude: str, code: str) -> str:
        """The bodies of a prelude's functions that this code calls, and that those call."""
        bodies, text, known = functions(Lua(self.others[prelude])._without_comments), "", set[str]()
        while more := {
            name for name in bodies if name not in known and re.search(rf"\b{name}\(", code + text)
        }:
            known |= more
            text += "".join(bodies[name] for name in more)
        return text

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
_UNPACKED = {
    "KEYS": re.compile(r"local ([\w,\s]+?) =\s+unpack\(KEYS(?:, (\d+), \d+)?\)"),
    "ARGV": re.compile(r"local ([\w,\s]+?) =\s+unpack\(ARGV(?:, (\d+), \d+)?\)"),
}
_FUNCTION = re.compile(r"^local function (\w+)\(([^)]*)\)\n(.*?)^end$", re.MULTILINE | re.DOTALL)

Rule = Callable[[Lua], Iterator[str]]


def constants(text: str) -> set[str]:
    return set(re.findall(r"^local ([A-Z_]+) =", text, re.MULTILINE))


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
    """KEYS and ARGV: as many as are read, each of them read, and told how in so many words: by a
    number, by `unpack` into as many names, or by a check of arguments from one to another."""
    code = lua.code
    for label in ("KEYS", "ARGV") if lua.is_script else ():
        told, read = sorted(lua.items(label)), set[int]()
        read.update(int(index) for index in re.findall(rf"{label}\[(\d+)\]", code))
        for names, first in _UNPACKED[label].findall(code):
            begin = int(first or 1)
            read.update(range(begin, begin + names.count(",") + 1))
        if told != list(range(1, len(told) + 1)) or told != sorted(read):
            yield f"{label}: the header numbers {told}, the code reads {sorted(read)}"
        rest = re.sub(rf"{label}\[\d+\]", "", _UNPACKED[label].sub("", code))
        if re.search(rf"\b{label}\b", rest):
            yield f"{label} is read other than by a number"
    if lua.is_script:
        for first, last in re.findall(r"are_(?:amounts|given)\((\d+), (\d+)\)", code):
            if not {int(first), int(last)} <= set(lua.items("ARGV")):
                yield f"arguments {first} to {last} are checked, and the header has fewer"


def numbered_codes(lua: Lua) -> Iterator[str]:
    told, returned = set(lua.items("RETURNS")), returned_codes(lua)
    if lua.is_script and told != returned:
        yield f"codes: the header says {sorted(told)}, the code returns {sorted(returned)}"


def returned_codes(lua: Lua) -> set[int]:
    """The numbers that may stand first in a reply; those of limits come from preludes."""
    codes: set[int] = set()
    for reply in re.findall(r"return (?:answer\(|\{) ?([^,})\n]+)", lua.code):
        codes.update(int(number) for number in re.findall(r"(?<![\w.])-?\d+", reply))
    return codes | {int(number) for number in re.findall(r"(?<![\w.])-[1-9]\d\b", lua.with_reached)}


def counted_fields(lua: Lua) -> Iterator[str]:
    """The longest reply has as many fields as the header lists."""
    if not lua.is_script:
        return
    told = top_level_items(lua.header["RETURNS"].split(". Codes:")[0])
    sent = max(top_level_items(text) for text in re.findall(r"return \{(.*?)\}", lua.code, re.S))
    if told != sent:
        yield f"the header lists {told} fields, the code returns {sent}"


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
    told_constants = set(re.findall(r"\b[A-Z_]{2,}\b", lua.header["PROVIDES"]))
    if told_constants - constants(lua.text):
        yield f"there is no {sorted(told_constants - constants(lua.text))}"


def named_preludes(lua: Lua) -> Iterator[str]:
    """A prelude is named if and only if something of it is used, and after what it uses itself."""
    if not lua.is_script:
        return
    named = lua.header.get("prelude", "").split()
    if sorted(named) != sorted(lua.used):
        yield f"names the preludes {named}, uses {sorted(lua.used)}"
    for place, name in enumerate(named):
        wanted = Lua("#!lua\n" + lua.others.get(name, ""), lua.others).used - {name}
        if not wanted <= set(named[:place]):
            yield f"{name} stands before one of {sorted(wanted)}, which it uses"


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
    named_preludes,
    named_commands,
    no_key_made,
)

# --- the files --------------------------------------------------------------------------------

TEXTS = {path.stem: path.read_text() for path in lua_folder().glob("*.lua")}
PRELUDES = {name: text for name, text in TEXTS.items() if not Lua(text).is_script}
FILES = {name: Lua(text, PRELUDES) for name, text in TEXTS.items()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", sorted(FILES))
def test_the_header_is_true(name: str, rule: Rule) -> None:
    assert list(rule(FILES[name])) == []


def test_every_file_is_a_script_or_the_prelude_of_one() -> None:
    assert {name for name, lua in FILES.items() if lua.is_script} == set(NAMES)
    named = {each for lua in FILES.values() for each in lua.header.get("prelude", "").split()}
    assert named == set(PRELUDES)


def test_no_two_preludes_provide_the_same_name() -> None:
    names = [name for lua in PRELUDES.values() for name in {*functions(lua), *constants(lua)}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(PRELUDES))
def test_a_prelude_provides_no_more_than_is_used(name: str) -> None:
    rest = "".join(lua.code for each, lua in FILES.items() if each != name)
    own = FILES[name].code
    for provided in functions(PRELUDES[name]):
        assert re.search(rf"\b{provided}\(", rest) or own.count(f"{provided}(") > 1, provided


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("reserve", ReserveCode),
        ("settle", SettleCode),
        ("entitle", EntitleCode),
        ("hydrate", FinishCode),
    ],
)
def test_the_port_knows_exactly_the_codes_of_the_header(name: str, codes: type[IntEnum]) -> None:
    of_begin = {1, 2} if name == "hydrate" else set()
    assert {int(code) for code in codes} == set(FILES[name].items("RETURNS")) - of_begin


# --- the rules themselves -----------------------------------------------------------------------

CLOCK = """\
-- purpose: a prelude.
-- promise: reads once.
-- PROVIDES: NONE, clock_ms(given)
-- invariants: none.
-- cost: one TIME.

local NONE = ''

local function clock_ms(given)
  return redis.call('TIME')
end
"""
SUMS = """\
-- purpose: a prelude that uses another.
-- promise: adds up.
-- PROVIDES: total(a, b),
--           now_and(a)
-- invariants: none.
-- cost: one LLEN.

local function total(a, b)
  return redis.call('LLEN', a) + b
end

local function now_and(a)
  return total(a, clock_ms(0))
end
"""
BOTH = {"clock": CLOCK, "sums": SUMS}
GIVEN = """\
#!lua flags=allow-oom
-- purpose: an example.
-- promise: it is true.
-- prelude: clock sums
-- KEYS: 1 meta · 2 account
-- ARGV: 1 rid · 2 kind: one | other · 3 first
--       4 second · 5 now ms, else ''
-- RETURNS: code, rid, sum (of 2
--          things). Codes: 1 done · 2 done before
--          -1 missing · 0 neither
-- invariants: none.
-- cost: TIME, 1 HGET, 1 LLEN. No loop.

local meta_key, account_key = unpack(KEYS) -- not KEYS[3]
local rid, kind, now = ARGV[1], ARGV[2], now_and(ARGV[5])
local first,
  second = unpack(ARGV, 3, 4)
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
    (numbered_inputs, "unpack(KEYS)", "KEYS[1], KEYS[1]"),
    (numbered_inputs, "local meta_key, account_key", "local meta_key"),
    (numbered_inputs, "unpack(ARGV, 3, 4)", "unpack(ARGV, 2, 3)"),
    (numbered_inputs, "unpack(ARGV, 3, 4)", "rid, kind"),
    (numbered_inputs, " · 5 now ms, else ''", ""),
    (numbered_inputs, "ARGV[1], ARGV[2]", "table.concat(ARGV), ARGV[1], ARGV[2]"),
    (numbered_inputs, "unpack(KEYS)", "unpack(KEYS), are_given(5, 6)"),
    (numbered_codes, " · 2 done before", ""),
    (numbered_codes, "-1 missing", "-1 missing · -2 gone"),
    (numbered_codes, "answer(-1,", "answer(-3,"),
    (numbered_codes, "rid and 1 or now and 2 or 0", "rid and 1 or 2"),
    (counted_fields, "code, rid, sum", "code, sum"),
    (counted_fields, "{ code, rid,", "{ code, rid, rid,"),
    (named_preludes, "-- prelude: clock sums\n", ""),
    (named_preludes, "-- prelude: clock sums", "-- prelude: sums clock"),
    (named_preludes, "-- prelude: clock sums", "-- prelude: sums"),
    (named_preludes, "now_and(ARGV[5])", "clock_ms(ARGV[5])"),
    (named_commands, "TIME, 1 HGET", "1 HGET"),
    (named_commands, "1 HGET, 1 LLEN", "1 LLEN"),
    (named_commands, "1 HGET, 1 LLEN", "1 HGET"),
    (named_commands, "redis.call('HGET'", "redis.pcall('XADD'"),
    (no_key_made, "'return { 9 }'", "'qg:{00}:m'"),
)
PLANTED_IN_PRELUDE: tuple[tuple[Rule, str, str], ...] = (
    (provided_functions, "clock_ms(given)\n-- inv", "clock_ms(given), other()\n-- inv"),
    (provided_functions, "-- PROVIDES: NONE, clock_ms(given)", "-- PROVIDES: NONE"),
    (provided_functions, "function clock_ms(given)", "function clock_ms(given, c)"),
    (provided_functions, "PROVIDES: NONE,", "PROVIDES: NONE, ALL,"),
    (provided_functions, "local NONE =", "local NOTHING ="),
    (fixed_order, "-- PROVIDES:", "-- KEYS:"),
    (named_commands, "one TIME", "nothing"),
)


def test_a_true_header_passes_every_rule() -> None:
    for lua in (Lua(GIVEN, BOTH), Lua(CLOCK, BOTH), Lua(SUMS, BOTH)):
        assert [untruth for rule in RULES for untruth in rule(lua)] == []


@pytest.mark.parametrize(("rule", "told", "untrue"), PLANTED)
def test_a_planted_untruth_is_found(rule: Rule, told: str, untrue: str) -> None:
    assert GIVEN.count(told) == 1
    assert list(rule(Lua(GIVEN.replace(told, untrue), BOTH)))


@pytest.mark.parametrize(("rule", "told", "untrue"), PLANTED_IN_PRELUDE)
def test_an_untruth_planted_in_a_prelude_is_found(rule: Rule, told: str, untrue: str) -> None:
    assert CLOCK.count(told) == 1
    assert list(rule(Lua(CLOCK.replace(told, untrue))))


def test_every_rule_is_shown_an_untruth() -> None:
    assert {rule for rule, _, _ in PLANTED + PLANTED_IN_PRELUDE} == set(RULES)
