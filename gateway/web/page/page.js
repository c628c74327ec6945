// The status page: who looks, kept in memory until the page is left, and the element that shows.

import "./embed.js";

const form = document.querySelector("#sign-in");
const field = document.querySelector("#credential");
const refusal = document.querySelector("#refusal");
const signedIn = document.querySelector("#signed-in");

let status = document.querySelector("quota-status");

/** Forget the credential, and all that was shown to it. */
function signOut(why = "") {
  const empty = document.createElement("quota-status");
  status.replaceWith(empty);
  status = empty;
  signedIn.hidden = true;
  form.hidden = false;
  refusal.textContent = why;
  field.setAttribute("aria-invalid", why !== "");
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  status.credential = field.value.trim();
  form.reset();
  form.hidden = true;
  signedIn.hidden = false;
  status.focus();
});

document.querySelector("#sign-out").addEventListener("click", () => signOut());
signedIn.addEventListener("quota-sign-in", (event) => signOut(event.detail.words));
// Browsers keep pages for the way back; the next person at this machine may take it.
addEventListener("pagehide", () => signOut());
