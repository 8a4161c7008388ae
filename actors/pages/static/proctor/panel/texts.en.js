/** The panel of an examinee in English: what was added to its texts of the wall. @type {import("../../common/i18n.js").Texts} */
export const texts = {
  needed: "What is needed",
  "act.needed.exhausted": "This examinee can come back only when you readmit them.",
  "act.needed.syncFailed": "There is no picture from the phone. If you give more time, the examinee can send one.",
  browser: "{browser} on {system}",
  "outages.gap": "What happened from {begin} to {end} is missing from the log: it was restored from an older copy, or has lost its end. Outages and entries of that time are not shown here.",
};
