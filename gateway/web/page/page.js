// The status page: who looks, kept in memory until the page is left, and the elements that show.

import "./embed.js";
import "./mails.js";

const form = document.querySelector("#sign-in");
const field = document.querySelector("#credential");
const refusal = document.querySelector("#refusal");
const signedIn = document.querySelector("#signed-in");

const elements = () => signedIn.querySelectorAll("quota-status, quota-mails");

/** Forget the credential, and all that was shown to it. */
function signOut(why = "") {
  for (const each of elements()) each.replaceWith(document.createElement(each.localName));
  signedIn.hidden = true;
  form.hidden = false;
  refusal.textContent = why;
  field.setAttribute("aria-invalid", why !== "");
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const credential = field.value.trim();
  for (const each of elements()) each.credential = credential;
  form.reset();
  form.hidden = true;
  signedIn.hidden = false;
  elements()[0].focus();
});

document.querySelector("#sign-out").addEventListener("click", () => signOut());
signedIn.addEventListener("quota-sign-in", (event) => signOut(event.detail.words));
// Browsers keep pages for the way back; the next person at this machine may take it.
addEventListener("pagehide", () => signOut());
