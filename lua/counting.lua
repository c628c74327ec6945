-- purpose: the prelude of scripts that count a call with all who count it, at once.
-- promise: nothing is left out, and nothing here can fail.
-- PROVIDES: store_all(account, member, tier, held, held_nano_gbp, open, settled)
-- invariants: payer, member and tier hold the same of a call, as long as each is there.
-- cost: what it costs to write an account and a tier. No call of its own.

-- Write all who count this call: payer, member and tier, those of them that are there.
local function store_all(account, member, tier, held, held_nano_gbp, open, settled)
  if account then
    store(account, held, held_nano_gbp, open)
  end
  if member then
    store(member, held, held_nano_gbp, open)
  end
  if tier then
    store_tier(tier, settled, held)
  end
end
