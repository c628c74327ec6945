// <quota-mails>: which mails somebody gets about the quota, each to be turned on or off.
//
//   <script type="module" src="https://gateway.example.org/quota/mails.js"></script>
//   <quota-mails></quota-mails>            with a `credential`, as <quota-status> has it
//
// A switch is saved as it is moved, and goes back when that fails.

import { QuotaElement } from "./element.js";
import { make } from "./words.js";

const NO_ADDRESS =
  "No e-mail address is known of you, so no mail can reach you. Ask those who run this service " +
  "to add one. What you choose here counts from then on.";
const STYLE = new URL("mails.css", import.meta.url);
const LEGENDS = { email: "By e-mail" };

const capital = (words) => words[0].toUpperCase() + words.slice(1);

export class QuotaMails extends QuotaElement {
  #last = Promise.resolve();

  constructor() {
    const style = make("link", { rel: "stylesheet", href: STYLE });
    super("Show which mails I get", () => this.show(), [style, make("h2", {}, "Mails")]);
  }

  /** What pressing the button does. */
  show() {
    return this.once("Asking the gateway …", async () => {
      const { answer, ...refused } = await this.asked("GET", "preferences");
      this.shown.replaceChildren(...(answer ? this.#choices(answer) : []));
      if (answer) this.say("Each switch is saved as you move it.");
      else this.refuse(refused);
    });
  }

  #choices({ email, kinds, preferences }) {
    const where = make("p", {}, email === null ? NO_ADDRESS : `Mails go to ${email}.`);
    const channels = [...new Set(preferences.map((wish) => wish.channel))];
    const sets = channels.map((channel) => {
      const wishes = preferences.filter((wish) => wish.channel === channel);
      const switches = wishes.map((wish) => this.#switch(wish, kinds[wish.kind]));
      return make("fieldset", {}, make("legend", {}, LEGENDS[channel] ?? channel), ...switches);
    });
    return [where, ...sets];
  }

  #switch({ kind, channel, enabled }, words) {
    const box = make("input", { type: "checkbox", role: "switch" });
    box.checked = enabled;
    box.addEventListener("change", () => {
      const wish = { kind, channel, enabled: box.checked };
      // One after the other, so that the last move of a switch is the one that stays.
      const saved = () => this.#save(box, wish, words);
      this.#last = this.#last.then(saved, saved);
    });
    return make("label", { class: "wish" }, box, make("span", {}, capital(words)));
  }

  async #save(box, wish, words) {
    this.say("Saving …");
    let isSaved = false;
    try {
      const body = { preferences: [wish] };
      const { answer, ...refused } = await this.asked("PUT", "preferences", body);
      isSaved = Boolean(answer);
      if (isSaved) this.say(`Saved. You get ${wish.enabled ? "mails" : "no more mails"} ${words}.`);
      else this.refuse({ ...refused, words: `This is not saved. ${refused.words}` });
    } finally {
      if (!isSaved && box.checked === wish.enabled) box.checked = !wish.enabled;
    }
  }
}

customElements.define("quota-mails", QuotaMails);
