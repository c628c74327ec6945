// Figures, money and moments as a person reads them, and the elements that carry them. Text becomes
// text nodes, never HTML: whatever a name or a tag holds is shown as it is.

const LANGUAGE = "en-GB";
const SVG = "http://www.w3.org/2000/svg";
const counted = new Intl.NumberFormat(LANGUAGE);

export const tokens = (amount) => counted.format(amount);


/** To a millionth of a pound: "0.000098400" is £0.000098; "2" is £2.00, or with more places. */
export function pounds(text, places = 2) {
  const digits = { minimumFractionDigits: places, maximumFractionDigits: 6 };
  const money = { style: "currency", currency: "GBP", ...digits };
  return new Intl.NumberFormat(LANGUAGE, money).format(Number(text));
}

/** A format of instants in a zone; in UTC where the browser does not know it. */
function inZone(zone, options) {
  const all = { hour: "2-digit", minute: "2-digit", ...options };
  try {
    return new Intl.DateTimeFormat(LANGUAGE, { ...all, timeZone: zone });
  } catch {
    return new Intl.DateTimeFormat(LANGUAGE, { ...all, timeZone: "UTC" });
  }
}

const LONG = { day: "numeric", month: "long", year: "numeric", timeZoneName: "short" };

/** "1 December 2026 at 00:00 GMT". */
export const moment = (instant, zone) => inZone(zone, LONG).format(new Date(instant));
/** "23 Nov, 14:05". */
export const shortly = (instant, zone) =>
  inZone(zone, { day: "numeric", month: "short" }).format(new Date(instant));
/** "14:05:03". */
export const clock = (instant, zone) =>
  inZone(zone, { second: "2-digit" }).format(new Date(instant));

/** A day "2026-11-28" as "28 November 2026", or with "short" as "28 Nov". */
export function day(text, month = "long") {
  const year = month === "long" ? "numeric" : undefined;
  const options = { day: "numeric", month, year, timeZone: "UTC" };
  return new Intl.DateTimeFormat(LANGUAGE, options).format(new Date(`${text}T00:00:00Z`));
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An element of HTML; children are elements and texts. */
export const make = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);
/** An element of SVG. */
export const draw = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

/** A table whose first cell in each row heads it. Cells are texts; `numbers`: columns set right. */
export function table(caption, heads, rows, numbers) {
  const cell = (name, scope) => (text, column) =>
    make(name, { ...scope(column), ...(numbers.includes(column) && { class: "number" }) }, text);
  const head = cell("th", () => ({ scope: "col" }));
  const body = (text, column) =>
    cell(column ? "td" : "th", () => (column ? {} : { scope: "row" }))(text, column);
  return make(
    "table",
    {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map(head))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(body)))),
  );
}
