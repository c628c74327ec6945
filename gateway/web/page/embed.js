// <quota-status>: the button "Check my token status" and what it shows, on any page.
//
//   <script type="module" src="https://gateway.example.org/quota/embed.js"></script>
//   <quota-status></quota-status>
//   document.querySelector("quota-status").credential = () => session.access_token;
//
// It asks the gateway that it was loaded from, when the button is pressed and at no other time.

import { ask } from "./asking.js";
import { headline, panel } from "./panel.js";
import { make } from "./words.js";

const NO_CHECKOUT = "route_not_available"; // the gateway collects no payments itself
const SOLD_ELSEWHERE = "Packs cannot be paid for here. Ask those who run this service.";
const NOT_SIGNED_IN = "You are not signed in any more. Sign in again, and press again.";
const STYLE = new URL("page.css", import.meta.url);

/** Fires `quota-sign-in` (detail: `{words}`) when the credential does not count any more. */
export class QuotaStatus extends HTMLElement {
  #button = make("button", { type: "button" }, "Check my token status");
  #said = make("p", { class: "said", role: "status" });
  #shown = make("div", { class: "shown" });
  #busy = false;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const style = make("link", { rel: "stylesheet", href: STYLE });
    root.append(style, make("div", { class: "panel" }, this.#button, this.#said, this.#shown));
    this.#button.addEventListener("click", () => this.check());
  }

  focus(options) {
    this.#button.focus(options);
  }

  /** What pressing the button does. */
  check() {
    return this.#once("Asking the gateway …", async (credential) => {
      const { answer, ...refused } = await ask("GET", "status", credential);
      this.#shown.replaceChildren(...(answer ? panel(answer, (topup) => this.#buy(topup)) : []));
      if (answer) this.#say(headline(answer));
      else this.#refuse(refused);
    });
  }

  /** To the page where a pack is paid; where packs are sold elsewhere, to the page for that. */
  #buy(topup) {
    return this.#once("Opening the checkout …", async (credential) => {
      const { answer, ...refused } = await ask("POST", "topup", credential);
      const url = answer?.url ?? (refused.code === NO_CHECKOUT ? topup.url : null);
      if (url) location.assign(url);
      else this.#refuse(refused.code === NO_CHECKOUT ? { words: SOLD_ELSEWHERE } : refused);
    });
  }

  /** One request at a time: a second press while one runs does nothing. */
  async #once(words, work) {
    if (this.#busy) return;
    this.#busy = true;
    this.#button.setAttribute("aria-disabled", "true");
    this.#say(words);
    try {
      await work(await this.#current());
    } finally {
      this.#busy = false;
      this.#button.removeAttribute("aria-disabled");
    }
  }

  async #current() {
    const { credential } = this;
    try {
      return (typeof credential === "function" ? await credential() : credential) ?? "";
    } catch (error) {
      this.#say(NOT_SIGNED_IN, true);
      throw error; // the application's own, for its console
    }
  }

  #refuse({ words, status }) {
    this.#say(words, true);
    if (status !== 401) return;
    this.dispatchEvent(new CustomEvent("quota-sign-in", { detail: { words }, bubbles: true }));
  }

  #say(words, isTrouble = false) {
    this.#said.classList.toggle("trouble", isTrouble);
    this.#said.textContent = words;
  }
}

/** The user's key or token, or a function that gives one or a promise of it, asked at each press.
 * On the prototype, so that it may be set before this file has come. */
QuotaStatus.prototype.credential = null;

customElements.define("quota-status", QuotaStatus);
