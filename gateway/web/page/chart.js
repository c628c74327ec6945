// Two pictures: what of the quota is gone, and the days of the period. Each has its text beside it.

import { day, draw, make, table, tokens } from "./words.js";

const DAY_MS = 86_400_000;
const HEIGHT = 150;
const FOOT = 20;
const HEAD = 16;

const percent = (part, whole) => `${whole > 0 ? Math.min(100, (100 * part) / whole) : 0}%`;

/** A bar of what is used, in flight and left, of the allowance and of packs. */
export function bar(quota) {
  const whole = quota.used_tokens + Math.max(quota.remaining_tokens, quota.held_tokens);
  const part = (name, from, amount) => {
    const place = { x: percent(from, whole), width: percent(amount, whole), height: 14 };
    return draw("rect", { class: name, ...place });
  };
  const said =
    `${tokens(quota.used_tokens)} tokens used, ${tokens(quota.held_tokens)} in flight, ` +
    `${tokens(quota.remaining_tokens)} left`;
  return draw(
    "svg",
    { class: "bar", role: "img", "aria-label": said, width: "100%", height: 14 },
    part("used", 0, quota.used_tokens),
    part("held", quota.used_tokens, quota.held_tokens),
  );
}

/** The next round number. */
function roundedUp(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, most)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((times) => times * power).find((top) => top >= most);
}

/** Every day from the first to the last before the reset, those to come too. */
function daysUntil(days, resetDay) {
  const used = new Map(days.map((each) => [each.day, each.tokens]));
  const all = [];
  const last = Date.parse(resetDay) - DAY_MS;
  for (let at = Date.parse(days[0].day); at <= last || all.length < days.length; at += DAY_MS) {
    const name = new Date(at).toISOString().slice(0, 10);
    all.push({ day: name, tokens: used.get(name) ?? null });
  }
  return all;
}

function bars(all, top) {
  const slot = 100 / all.length;
  const plot = HEIGHT - HEAD - FOOT;
  return all
    .map((each, index) => ({ ...each, x: `${(index + 0.14) * slot}%`, width: `${slot * 0.72}%` }))
    .filter((each) => each.tokens !== null)
    .map(({ day: name, tokens: amount, x, width }) => {
      // A day without use has a line, so that it is seen to have been.
      const height = Math.max(1, (plot * Math.max(0, amount)) / top);
      const about = draw("title", {}, `${day(name)}: ${tokens(amount)}`);
      return draw("rect", { class: "used", x, width, y: HEAD + plot - height, height }, about);
    });
}

function axis(all, top) {
  const bottom = HEIGHT - FOOT;
  const line = (y, name) => draw("line", { class: name, x1: 0, x2: "100%", y1: y, y2: y });
  const label = (index, x, anchor) =>
    draw("text", { x, y: HEIGHT - 4, "text-anchor": anchor }, day(all[index].day, "short"));
  return [
    line(HEAD, "grid"),
    line((HEAD + bottom) / 2, "grid"),
    line(bottom, "ground"),
    draw("text", { x: 0, y: HEAD - 4 }, tokens(top)),
    label(0, 0, "start"),
    ...(all.length > 2 ? [label(Math.floor(all.length / 2), "50%", "middle")] : []),
    ...(all.length > 1 ? [label(all.length - 1, "100%", "end")] : []),
  ];
}

/** The days, of which one at least has tokens, as a picture, in a sentence, and as a table. */
export function chart(days, resetDay) {
  const most = days.reduce((best, each) => (each.tokens > best.tokens ? each : best));
  const sum = days.reduce((total, each) => total + each.tokens, 0);
  const said =
    `Tokens on each day from ${day(days[0].day)} to ${day(days.at(-1).day)}: ` +
    `${tokens(sum)} in all, the most on ${day(most.day)}, ${tokens(most.tokens)}.`;
  const all = daysUntil(days, resetDay);
  const top = roundedUp(most.tokens);
  const picture = draw(
    "svg",
    { class: "chart", role: "img", "aria-label": said, width: "100%", height: HEIGHT },
    ...axis(all, top),
    ...bars(all, top),
  );
  const rows = days.map((each) => [day(each.day), tokens(each.tokens)]);
  return [
    picture,
    make("p", { class: "hint" }, said),
    make(
      "details",
      {},
      make("summary", {}, "The days as a table"),
      table("Tokens by day", ["Day", "Tokens"], rows, [1]),
    ),
  ];
}
