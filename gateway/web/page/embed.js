// <quota-status>: the button "Check my token status" and what it shows, on any page.
//
//   <script type="module" src="https://gateway.example.org/quota/embed.js"></script>
//   <quota-status></quota-status>
//   document.querySelector("quota-status").credential = () => session.access_token;

import { QuotaElement } from "./element.js";
import { headline, panel } from "./panel.js";

const NO_CHECKOUT = "route_not_available"; // the gateway collects no payments itself
const SOLD_ELSEWHERE = "Packs cannot be paid for here. Ask those who run this service.";

export class QuotaStatus extends QuotaElement {
  constructor() {
    super("Check my token status", () => this.check());
  }

  /** What pressing the button does. */
  check() {
    return this.once("Asking the gateway …", async () => {
      const { answer, ...refused } = await this.asked("GET", "status");
      this.shown.replaceChildren(...(answer ? panel(answer, (topup) => this.#buy(topup)) : []));
      if (answer) this.say(headline(answer));
      else this.refuse(refused);
    });
  }

  /** To the page where a pack is paid; where packs are sold elsewhere, to the page for that. */
  #buy(topup) {
    return this.once("Opening the checkout …", async () => {
      const { answer, ...refused } = await this.asked("POST", "topup");
      const url = answer?.url ?? (refused.code === NO_CHECKOUT ? topup.url : null);
      if (url) location.assign(url);
      else this.refuse(refused.code === NO_CHECKOUT ? { words: SOLD_ELSEWHERE } : refused);
    });
  }
}

customElements.define("quota-status", QuotaStatus);
