-- purpose: the prelude of scripts whose numbers come one an argument, or with a sign.
-- promise: nothing is read but arguments.
-- PROVIDES: are_amounts(first, last), signed(text)
-- invariants: what is no amount, of either sign, is told as false or nil.
-- cost: no call. Loops over arguments.

-- True when these arguments are amounts, every one of them.
local function are_amounts(first, last)
  for place = first, last do
    if not amount(ARGV[place]) then
      return false
    end
  end
  return true
end

local function signed(text)
  return #text < 17 and string.find(text, '^-?%d+$') and text + 0
end
