/**
 * The sign-in form of the wall: asks for a token if the page has none, or if its token was refused.
 */

import { t } from "../../common/i18n.js";
import { claimsOf, onePerPlan } from "../../common/token.js";
import { element, setText } from "../../common/elements.js";

/** The dialog with the form. */
export class SignIn {
  /** @param {(tokens: string[]) => void} enter is called with tokens of the right form and role, one for each plan */
  constructor(enter) {
    this._dialog = /** @type {HTMLDialogElement} */ (element("door"));
    const input = /** @type {HTMLTextAreaElement} */ (element("door-token"));
    input.addEventListener("input", () => input.setCustomValidity(""));
    element("door-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const tokens = onePerPlan(input.value.split(/[\s,]+/).filter(Boolean));
      const formed = tokens.length > 0 && tokens.every((token) => /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token));
      const wrong = formed ? tokens.map(otherRole).find(Boolean) : t("door.notToken");
      if (wrong) {
        input.setCustomValidity(wrong);
        input.reportValidity();
        return;
      }
      input.value = "";
      this._dialog.close();
      enter(tokens);
    });
  }

  /** Open the form. @param {string} why a sentence */
  open(why) {
    setText(element("door-why"), why);
    if (!this._dialog.open) this._dialog.showModal();
  }
}

/**
 * Return the sentence that says why a token cannot open the wall; empty: its role is right. An examinee's token must not
 * reach the server: it would connect as that examinee and replace the examinee's own page.
 * @param {string} token
 */
export function otherRole(token) {
  const role = claimsOf(token)?.role || "proctor";
  return role === "proctor" ? "" : t("door.role", { role });
}
