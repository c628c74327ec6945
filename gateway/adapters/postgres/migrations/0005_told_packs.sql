-- What Redis is told of a payer's packs, as JSON [id, tokens left, end in ms] by end: with those
-- that ended in the last day, for calls that began before; where there are more than `most`, what
-- can still be spent goes first. Null is none.
CREATE FUNCTION told_packs(of_payer text, most int) RETURNS json
LANGUAGE sql STABLE
RETURN (
    SELECT json_agg(json_build_array(pack_id, left_tokens, epoch_ms(ends_at))
                    ORDER BY ends_at, pack_id)
    FROM (SELECT pack_id, left_tokens, ends_at FROM pack_balances
          WHERE payer = of_payer AND ends_at > now() - interval '1 day'
          ORDER BY live DESC, ends_at, pack_id LIMIT most) AS spendable
);
