// What `dashboard.html` shows: the components of docs/examples, as an application would use them.

import OpenAI from "openai";
import { createRoot } from "react-dom/client";
import { Ask, TokenStatus } from "../../docs/examples/quota-prompt";

export function show(gateway: string, key: string, model: string) {
  const openai = new OpenAI({
    baseURL: `${gateway}/v1`,
    apiKey: key,
    dangerouslyAllowBrowser: true,
  });
  createRoot(document.querySelector("#app")!).render(
    <>
      <h1>Dashboard</h1>
      <Ask openai={openai} model={model} />
      <TokenStatus credential={async () => key} />
    </>,
  );
}
