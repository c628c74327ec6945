// What `recordUsage` of docs/examples returns, called as an application would.
// Arguments: the module, the gateway's URL, a service key, a user, a user who has nothing left.

import { pathToFileURL } from "node:url";

const [module, url, key, user, spent] = process.argv.slice(2);
const { recordUsage } = await import(pathToFileURL(module));

let calls = 0;
/** The answers to the first two attempts are lost on their way back. */
const losing = async (...request) => {
  const reply = await fetch(...request);
  calls += 1;
  if (calls <= 2) throw new TypeError("the connection broke");
  return reply;
};
const usage = { id: "answer-1", user, model: "gpt-4o-mini", prompt_tokens: 40, output_tokens: 10 };
const late = { ...usage, id: "answer-2", user: spent };

const results = {
  lost: await recordUsage({ url, key, fetch: losing }, usage),
  calls,
  again: await recordUsage({ url, key }, usage),
  other: await recordUsage({ url, key }, { ...usage, output_tokens: 11 }),
  refused: await recordUsage({ url, key }, late),
  forced: await recordUsage({ url, key }, { ...late, already_spent: true, cost_gbp: "0.0004" }),
  stranger: await recordUsage({ url, key: "qg_wrong" }, usage),
};
try {
  await recordUsage({ url: "http://127.0.0.1:9", key, attempts: 2 }, usage);
} catch (error) {
  results.unreachable = error.message;
}
console.log(JSON.stringify(results));
