// The calls that an application makes, through the official SDK as it is installed. The same file
// runs in Node and in a page; what it returns is compared with what the gateway and the ledger say.

const PROMPT = 'Hello';

const seen = (response) =>
  Object.fromEntries([...response.headers].filter(([name]) => /^(x-quota|x-request-id)/.test(name)));

async function whole(promise, read) {
  const { data, response } = await promise.withResponse();
  return { ...read(data), headers: seen(response) };
}

async function streamed(promise, read) {
  const { data, response } = await promise.withResponse();
  const events = [];
  for await (const event of data) events.push(event);
  return { ...read(events), headers: seen(response) };
}

const text = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? '').join('');

export const CALLS = {
  chat: (client, model) =>
    whole(
      client.chat.completions.create({ model, messages: [{ role: 'user', content: PROMPT }] }),
      (done) => ({
        text: done.choices[0].message.content,
        tokens: done.usage.total_tokens,
      }),
    ),
  chatStream: (client, model) =>
    streamed(
      client.chat.completions.create({
        model,
        stream: true,
        stream_options: { include_usage: true },
        messages: [{ role: 'user', content: PROMPT }],
      }),
      (chunks) => ({ text: text(chunks), tokens: chunks.at(-1).usage.total_tokens }),
    ),
  chatStreamWithoutUsage: (client, model) =>
    streamed(
      client.chat.completions.create({
        model,
        stream: true,
        messages: [{ role: 'user', content: PROMPT }],
      }),
      (chunks) => ({ text: text(chunks), tokens: null, usage: chunks.some((chunk) => chunk.usage) }),
    ),
  response: (client, model) =>
    whole(client.responses.create({ model, input: PROMPT }), (done) => ({
      text: done.output_text,
      tokens: done.usage.total_tokens,
    })),
  responseStream: (client, model) =>
    streamed(client.responses.create({ model, input: PROMPT, stream: true }), (events) => ({
      text: events
        .filter((event) => event.type === 'response.output_text.delta')
        .map((event) => event.delta)
        .join(''),
      tokens: events.at(-1).response.usage.total_tokens,
    })),
  completion: (client, model) =>
    whole(client.completions.create({ model, prompt: PROMPT }), (done) => ({
      text: done.choices[0].text,
      tokens: done.usage.total_tokens,
    })),
  completionStream: (client, model) =>
    streamed(client.completions.create({ model, prompt: PROMPT, stream: true }), (chunks) => ({
      text: chunks.map((chunk) => chunk.choices[0]?.text ?? '').join(''),
      tokens: null,
    })),
  embedding: (client) =>
    whole(
      client.embeddings.create({ model: 'text-embedding-3-small', input: PROMPT }),
      (done) => ({ text: null, tokens: done.usage.total_tokens, sizes: done.data[0].embedding.length }),
    ),
};

/** Every call one after the other; an SDK's error is told by its class, status and code. */
export async function callAll(client, model) {
  const results = {};
  for (const [name, call] of Object.entries(CALLS)) {
    results[name] = await call(client, model).catch(told);
  }
  return results;
}

export const told = (error) => ({
  error: error.constructor.name,
  status: error.status,
  code: error.code,
  message: error.message,
  retries: error.headers?.get?.('x-should-retry'),
  upgrade: error.error?.quota?.upgrade,
});
