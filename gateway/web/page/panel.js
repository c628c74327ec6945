// What a status answer looks like. Reckons nothing: every figure is the gateway's own.

import { bar, chart } from "./chart.js";
import { clock, day, make, moment, pounds, shortly, table, tokens } from "./words.js";

const OUTCOMES = {
  client_gone: "left before its end",
  upstream_error: "broke off",
  expired: "was cut off",
  outage: "counted afterwards",
  unknown_upstream: "no answer",
};

/** What a screen reader says when the figures have come, and everybody sees. */
export const headline = ({ at, period, quota }) =>
  `Figures of ${clock(at, period.zone)}: ${tokens(quota.remaining_tokens)} tokens left.`;

/** The whole panel. `buy` is called when the button for it is pressed. */
export function panel(status, buy) {
  const { history, packs } = status;
  return [
    ...standing(status),
    ...waysOn(status.quota, buy),
    ...(packs.length ? section("Packs", packList(status)) : []),
    ...(status.member ? section("Your part", ownPart(status)) : []),
    ...limits(status),
    ...(history ? past(history, status) : [missing(status.history_missing)]),
  ];
}

const section = (title, ...content) => [make("h2", {}, title), ...content];

function standing({ at, period, quota, pace, payer, member }) {
  const figures = [
    ["Left", tokens(quota.remaining_tokens)],
    ["Used", tokens(quota.used_tokens), ` of ${tokens(quota.limit_tokens)}`],
    ["In flight", tokens(quota.held_tokens)],
    ["In packs", tokens(quota.pack_tokens)],
  ];
  const pairs = figures.map(([name, value, ...most]) => {
    const beside = most.map((each) => make("small", {}, each));
    return make("div", {}, make("dt", {}, name), make("dd", {}, value, ...beside));
  });
  const resets = moment(period.reset_at, period.zone);
  return [
    make("dl", { class: "figures" }, ...pairs),
    bar(quota),
    make("p", {}, ...untilWhen(quota, pace, resets)),
    make(
      "p",
      { class: "hint" },
      `Figures of ${moment(at, period.zone)} (${period.zone}), tier “${quota.tier}”` +
        `${member ? `, team “${payer}”` : ""}. They do not change until you press again.`,
    ),
  ];
}

/** When it starts again, and how long it lasts at this pace. */
function untilWhen(quota, pace, resets) {
  if (quota.remaining_tokens <= 0) {
    return [make("strong", {}, "Your quota is used up."), ` It starts again on ${resets}.`];
  }
  const again = `Your quota starts again on ${resets}. `;
  const speed = `At this pace, ${tokens(pace.tokens_a_day)} tokens a day,`;
  if (pace.quota_ends_on === null) return [again, `${speed} it lasts until then.`];
  return [again, make("strong", {}, `${speed} it ends on ${day(pace.quota_ends_on)}.`)];
}

function waysOn({ upgrade, topup }, buy) {
  const ways = [];
  if (upgrade?.url) {
    const words = `Upgrade to “${upgrade.tier}”`;
    ways.push(make("a", { class: "button", href: upgrade.url }, words));
  } else if (upgrade) {
    const words = `The next tier is “${upgrade.tier}”; ask those who run this service.`;
    ways.push(make("p", {}, words));
  }
  if (topup) {
    const words = `Buy ${tokens(topup.tokens)} tokens for ${pounds(topup.price_gbp)}`;
    const button = make("button", { type: "button", class: "buy" }, words);
    button.addEventListener("click", () => buy(topup));
    ways.push(button);
  }
  return ways.length ? [make("div", { class: "ways" }, ...ways)] : [];
}

function packList({ packs, period }) {
  const said = (pack) =>
    `${tokens(pack.left_tokens)} tokens left, until ${moment(pack.ends_at, period.zone)}`;
  return make("ul", {}, ...packs.map((pack) => make("li", {}, said(pack))));
}

function ownPart({ member, limits: { member_tokens: ceiling } }) {
  const most = ceiling === null ? "" : ` of the ${tokens(ceiling)} that are yours`;
  return make(
    "p",
    {},
    "The figures above are your team's. " +
      `You have used ${tokens(member.used_tokens)} tokens${most}; ` +
      `${tokens(member.held_tokens)} are in flight. Days and charges below are yours.`,
  );
}

function limits({ limits: found, spent_gbp: spent, open_calls: open }) {
  const said = [
    found.gbp !== null && `${pounds(spent)} of ${pounds(found.gbp)} spent`,
    found.requests_a_minute !== null && `${tokens(found.requests_a_minute)} requests a minute`,
    found.tokens_a_minute !== null && `${tokens(found.tokens_a_minute)} tokens a minute`,
    found.concurrent !== null && `${tokens(open)} of ${tokens(found.concurrent)} calls at once`,
  ].filter(Boolean);
  return said.length
    ? section("Other limits", make("ul", {}, ...said.map((each) => make("li", {}, each))))
    : [];
}

const missing = (why) =>
  make("p", {}, `Days and last charges cannot be shown: ${why}. The figures above are right.`);

function past({ days, charges }, { period }) {
  const isUsed = days.some((each) => each.tokens > 0);
  const resetDay = period.reset_local.slice(0, 10);
  return [
    ...(isUsed ? section("This period, day by day", ...chart(days, resetDay)) : []),
    ...section("Last charges", ...lastCharges(charges, period.zone)),
  ];
}

function what({ model, tag, kind, outcome }) {
  const parts = [model, tag && `“${tag}”`, kind === "correction" && kind, OUTCOMES[outcome]];
  return parts.filter(Boolean).join(", ");
}

function lastCharges(charges, zone) {
  if (!charges.length) return [make("p", {}, "No call was charged in this period.")];
  const heads = ["When", "What", "Tokens", "Cost", "Quality"];
  const rows = charges.map((each) => [
    shortly(each.at, zone),
    what(each),
    tokens(each.charged_tokens),
    pounds(each.cost_gbp, 6),
    each.quality,
  ]);
  const many = `The last ${charges.length} charges, newest first`;
  const caption = charges.length === 1 ? "The only charge so far" : many;
  return [
    make(
      "div",
      { class: "wide", role: "region", "aria-label": "Last charges", tabindex: 0 },
      table(caption, heads, rows, [2, 3]),
    ),
    make(
      "p",
      { class: "hint" },
      "Measured: as the provider of the model counted it. Estimated: the provider told no " +
        "figure, so it was counted here. Partial: an answer that broke off counts up to there.",
    ),
  ];
}
