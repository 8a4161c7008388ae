// Help in the badge: what it says of the examinee's request, and the label of its button.

import { fill } from "./examwire-badge-texts.js";

/** @typedef {import("./examwire.js").ExamineeClient} ExamineeClient */

/**
 * Return the text and the label of the button; both are empty when there is nothing to ask.
 * @param {Pick<ExamineeClient, "help" | "askingForHelp" | "endReason"> & {status: {state: string}}} client
 * @param {string} lang
 * @returns {{text: string, button: string}}
 */
export function helpAppearance({ help, askingForHelp, endReason, status }, lang) {
  if (endReason !== null || status.state === "idle" || status.state === "gaveUp") return { text: "", button: "" };
  if (help === null && askingForHelp === null) return { text: "", button: fill(lang, "askForHelp") };
  const by = help?.takenByName ?? help?.takenBy;
  const text = by ? fill(lang, "helpTaken", { by }) : fill(lang, help === null ? "helpAsking" : "helpAsked");
  return { text, button: fill(lang, "noHelp") };
}
