// In an application in React: a call that the quota refuses shows how to go on, in place of an
// error; and the button "Check my token status" stands in the dashboard. Needs `react` (18 or
// newer), `openai`, and this line in the application's page:
//
//   <script type="module" src="https://gateway.example.org/quota/embed.js"></script>

import OpenAI from "openai";
import { useState } from "react";
import type { DetailedHTMLProps, HTMLAttributes } from "react";

/** What the gateway says of a quota that refused a call: `error.quota` of the answer. */
export interface Quota {
  limit: string;
  tier: string;
  limit_tokens: number;
  used_tokens: number;
  needed_tokens: number;
  reset_at: string;
  upgrade: { tier: string; url: string | null } | null;
  topup: { tokens: number; price_gbp: string; url: string | null } | null;
}

export interface Refusal {
  message: string;
  quota: Quota;
}

/** The refusal in an error of the SDK; null where it is some other error. */
export function refusalOf(error: unknown): Refusal | null {
  if (!(error instanceof OpenAI.APIError) || error.status !== 429) return null;
  const said = error.error as Partial<Refusal> | undefined;
  return said?.quota ? { message: said.message ?? error.message, quota: said.quota } : null;
}

/** Why a call was refused, and the ways on that the user's tier has. */
export function UpgradePrompt({ refusal, onClose }: { refusal: Refusal; onClose: () => void }) {
  const { upgrade, topup } = refusal.quota;
  return (
    <div role="alert">
      <p>{refusal.message}</p>
      {upgrade?.url && <a href={upgrade.url}>Upgrade to {upgrade.tier}</a>}
      {topup?.url && (
        <a href={topup.url}>
          Buy {topup.tokens.toLocaleString()} tokens for £{topup.price_gbp}
        </a>
      )}
      <button type="button" onClick={onClose}>
        Not now
      </button>
    </div>
  );
}

/** A question and its answer, or the way on. `openai` has the gateway as its `baseURL`. */
export function Ask({ openai, model }: { openai: OpenAI; model: string }) {
  const [answer, setAnswer] = useState("");
  const [refusal, setRefusal] = useState<Refusal | null>(null);

  const ask = async (question: string) => {
    try {
      const messages = [{ role: "user" as const, content: question }];
      const done = await openai.chat.completions.create({ model, messages });
      setAnswer(done.choices[0].message.content ?? "");
    } catch (error) {
      const found = refusalOf(error);
      if (!found) throw error;
      setRefusal(found);
    }
  };

  if (refusal) return <UpgradePrompt refusal={refusal} onClose={() => setRefusal(null)} />;
  return (
    <>
      <button type="button" onClick={() => ask("What is a quota?")}>
        Ask
      </button>
      <p>{answer}</p>
    </>
  );
}

type StatusElement = HTMLElement & { credential?: () => string | Promise<string> };

declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      "quota-status": DetailedHTMLProps<HTMLAttributes<StatusElement>, StatusElement>;
    }
  }
}

/** The button. `credential` is called at each press, so that it gives a token that still counts. */
export function TokenStatus({ credential }: { credential: () => string | Promise<string> }) {
  const give = (element: StatusElement | null) => {
    if (element) element.credential = credential;
  };
  return <quota-status ref={give} />;
}
