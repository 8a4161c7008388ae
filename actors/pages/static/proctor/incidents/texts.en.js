/** Who needs attention, in English. @type {import("../../common/i18n.js").Texts} */
export const texts = {
  "attention.elsewhere": { one: "{n} in another plan", other: "{n} in other plans" },
  "attention.hidden": { one: "{n} who needs attention is hidden", other: "{n} who need attention are hidden" },
  "attention.together": {
    one: "{n} lost together with others: see the line above",
    other: "{n} lost together: see the line above",
  },
  "attention.show": "Show",
  "attention.below": "{n} below",
  "attention.emptied": "Nobody is left in the filter. Everybody is shown.",
};
