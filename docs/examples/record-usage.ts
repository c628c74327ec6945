// Reports usage to quota-gateway, in place of record_token_usage(user, tokens, cost, model).
// No library: fetch and nothing else, so it runs in Node, Deno, Bun and edge functions.
//
//   const result = await recordUsage(
//     { url: "https://gateway.example.org", key: process.env.QUOTA_SERVICE_KEY! },
//     { id: completion.id, user: userId, model: completion.model,
//       prompt_tokens: completion.usage.prompt_tokens,
//       output_tokens: completion.usage.completion_tokens, already_spent: true },
//   );
//   if (!result.booked) showUpgrade(result.error.quota?.upgrade);

export interface Gateway {
  url: string;
  key: string;
  /** How often to try until there is an answer; 8 if left out: about a minute. */
  attempts?: number;
  fetch?: typeof fetch;
}

/** One piece of usage. `id` is the same in every attempt, or it is counted twice. */
export interface Usage {
  id: string;
  model: string;
  /** Whose it is; needed with a service key. */
  user?: string;
  prompt_tokens?: number;
  cached_tokens?: number;
  output_tokens?: number;
  /** In place of the three above, where nobody told them apart. */
  total_tokens?: number;
  /** Pounds, as text. Left out: the gateway's price list says. */
  cost_gbp?: string;
  tag?: string;
  at?: string;
  /** The tokens are gone: book them whatever is left. */
  already_spent?: boolean;
}

export interface Quota {
  limit: string | null;
  tier: string;
  limit_tokens: number;
  used_tokens: number;
  held_tokens: number;
  pack_tokens: number;
  reset_at: string;
  upgrade: { tier: string; url: string | null } | null;
  topup: { tokens: number; price_gbp: string; url: string | null } | null;
}

export interface Booked {
  id: string;
  event_id: string;
  user: string;
  decision: "admitted" | "forced";
  charged_tokens: number;
  cost_gbp: string;
  quota: Quota & { remaining_tokens: number };
}

export interface Problem {
  message: string;
  code: string;
  param: string | null;
  /** There where a limit refused. */
  quota?: Quota;
}

/** Booked; or refused by a limit or a rule (`status` 429, 403, …), and then nothing is booked. */
export type Result =
  | { booked: true; answer: Booked }
  | { booked: false; status: number; error: Problem };

export type RecordUsage = (gateway: Gateway, usage: Usage) => Promise<Result>;

type Pause = (attempt: number, told: string | null) => number;
type Attempt = (gateway: Gateway, body: string) => Promise<Response | null>;

const LONGEST_MS = 10_000;

/** What the gateway asks to wait, else longer each time, with some chance in it. */
const pauseMs: Pause = (attempt, told) =>
  Number(told) > 0
    ? Number(told) * 1000
    : Math.min(LONGEST_MS, 250 * 2 ** attempt) * (0.5 + Math.random() / 2);

/** One request; null where nobody knows what became of it. */
const attemptOnce: Attempt = async (gateway, body) => {
  try {
    return await (gateway.fetch ?? fetch)(`${gateway.url}/quota/v1/usage`, {
      method: "POST",
      headers: { Authorization: `Bearer ${gateway.key}`, "Content-Type": "application/json" },
      body,
      signal: AbortSignal.timeout(30_000),
    });
  } catch {
    return null;
  }
};

/**
 * Reports usage until there is an answer, with the same id each time, so it counts once. Throws
 * only where there was none in all attempts: keep the usage then, and report it again later.
 */
export const recordUsage: RecordUsage = async (gateway, usage) => {
  const body = JSON.stringify(usage);
  for (let attempt = 0; attempt < (gateway.attempts ?? 8); attempt += 1) {
    const reply = await attemptOnce(gateway, body);
    const told = reply?.headers.get("retry-after") ?? null;
    const wait = pauseMs(attempt, told);
    // Of a month that is used up it says so; of a minute that is full, when to come back.
    const isOver = reply?.headers.get("x-should-retry") === "false" || wait > LONGEST_MS;
    const isRefusal = reply !== null && reply.status < 500;
    if (reply !== null && isRefusal && (reply.status !== 429 || isOver)) {
      const text = await reply.text();
      return reply.ok
        ? { booked: true, answer: JSON.parse(text) }
        : { booked: false, status: reply.status, error: JSON.parse(text).error };
    }
    await new Promise((wake) => setTimeout(wake, wait));
  }
  throw new Error(`no answer about the usage ${usage.id}: report it again under this id`);
};
