// Asks the gateway that this file came from, once for each call; what it answers, or words for a
// person: what is wrong and what to do. Nothing is kept.

const API = new URL("v1/", import.meta.url);
const WAIT_MS = 30_000;

const NOT_KNOWN =
  "This key or token does not count here. Was all of it copied? A key may have been revoked, and " +
  "a token runs out after a while: get a new one where you got this one, and sign in again.";
const AWAY =
  "The gateway does not answer. Your quota stays as it is. Look whether this device is online, " +
  "and press again.";

const later = (seconds) =>
  "The gateway cannot answer this at the moment. Nothing is lost, and your quota stays as it is. " +
  `Wait ${seconds === "1" ? "a second" : `${seconds} seconds`} and press again.`;
const failed = (status, id) =>
  "This did not work. Press again; if it stays like this, tell those who run the gateway: " +
  `status ${status}, request ${id}.`;

/** What to tell a person of a refusal. */
function wordsFor(reply, error) {
  if (reply.status === 401) return NOT_KNOWN;
  if (reply.status === 503) return later(reply.headers.get("Retry-After") ?? "some");
  // The others are said by the gateway, in words for a person; or by something in front of it.
  return error?.message ?? failed(reply.status, reply.headers.get("x-request-id") ?? "no id");
}

/** `{answer}`, or `{words, status, code}`; status 0: there was no answer. Never throws. */
export async function ask(method, name, credential, body) {
  // Nothing else can stand in a header, and so in no key.
  if (!/^[!-~]+$/.test(credential)) return { words: NOT_KNOWN, status: 401 };
  try {
    const reply = await fetch(new URL(name, API), {
      method,
      headers: {
        Authorization: `Bearer ${credential}`,
        ...(body && { "Content-Type": "application/json" }),
      },
      body: body && JSON.stringify(body),
      cache: "no-store",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(WAIT_MS),
    });
    const said = await reply.json().catch(() => null);
    if (reply.ok && said !== null) return { answer: said };
    const error = said?.error;
    return { words: wordsFor(reply, error), status: reply.status, code: error?.code };
  } catch {
    return { words: AWAY, status: 0 };
  }
}
