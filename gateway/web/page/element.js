// What the elements have in common: a button, a line that says how it stands, and what is shown.
// Each asks when somebody presses, and at no other time.

import { ask } from "./asking.js";
import { make } from "./words.js";

const NOT_SIGNED_IN = "You are not signed in any more. Sign in again, and press again.";
const STYLE = new URL("page.css", import.meta.url);

/** Fires `quota-sign-in` (detail: `{words}`) when the credential does not count any more. */
export class QuotaElement extends HTMLElement {
  #button = make("button", { type: "button" });
  #said = make("p", { class: "said", role: "status" });
  #busy = false;
  shown = make("div", { class: "shown" });

  /** `press` is what the button does; `above` stands before it. */
  constructor(words, press, above = []) {
    super();
    this.#button.append(words);
    this.#button.addEventListener("click", press);
    const root = this.attachShadow({ mode: "open" });
    const style = make("link", { rel: "stylesheet", href: STYLE });
    const panel = [...above, this.#button, this.#said, this.shown];
    root.append(style, make("div", { class: "panel" }, ...panel));
  }

  focus(options) {
    this.#button.focus(options);
  }

  /** One piece of work at a time: a second press while one runs does nothing. */
  async once(words, work) {
    if (this.#busy) return;
    this.#busy = true;
    this.#button.setAttribute("aria-disabled", "true");
    this.say(words);
    try {
      await work();
    } finally {
      this.#busy = false;
      this.#button.removeAttribute("aria-disabled");
    }
  }

  /** What the gateway answers to whoever is signed in: as `ask`. */
  async asked(method, name, body) {
    return ask(method, name, await this.#current(), body);
  }

  async #current() {
    const { credential } = this;
    try {
      return (typeof credential === "function" ? await credential() : credential) ?? "";
    } catch (error) {
      this.say(NOT_SIGNED_IN, true);
      throw error; // the application's own, for its console
    }
  }

  refuse({ words, status }) {
    this.say(words, true);
    if (status !== 401) return;
    this.dispatchEvent(new CustomEvent("quota-sign-in", { detail: { words }, bubbles: true }));
  }

  say(words, isTrouble = false) {
    this.#said.classList.toggle("trouble", isTrouble);
    this.#said.textContent = words;
  }
}

/** The user's key or token, or a function that gives one or a promise of it, asked at each press.
 * On the prototype, so that it may be set before this file has come. */
QuotaElement.prototype.credential = null;
