/**
 * The sign-in form of the wall: asks for a token if the page has none, or if its token was refused.
 */

import { t } from "../../common/i18n.js";
import { claimsOf } from "../../common/token.js";
import { element, setText } from "../../common/elements.js";

export class Door {
  /** @param {(token: string) => void} enter */
  constructor(enter) {
    this._dialog = /** @type {HTMLDialogElement} */ (element("door"));
    this._why = "door.none";
    const input = /** @type {HTMLTextAreaElement} */ (element("door-token"));
    input.addEventListener("input", () => input.setCustomValidity(""));
    element("door-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = input.value.trim();
      const wrong = /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) ? otherRole(token) : t("door.notToken");
      if (wrong) {
        input.setCustomValidity(wrong);
        input.reportValidity();
        return;
      }
      input.value = "";
      this._dialog.close();
      enter(token);
    });
  }

  /** @param {string} why a sentence */
  open(why) {
    setText(element("door-why"), why);
    if (!this._dialog.open) this._dialog.showModal();
  }
}

/**
 * Say why a token cannot open the wall; empty: its role is right. An examinee's token must not reach the server: it would
 * connect as that examinee and replace the examinee's own page.
 * @param {string} token
 */
export function otherRole(token) {
  const role = claimsOf(token)?.role || "proctor";
  return role === "proctor" ? "" : t("door.role", { role });
}
