/**
 * Asks whether an action is really meant: about one examinee, several, or everybody. An extension says how long.
 *
 * @typedef {import("./batch.js").BatchKind} BatchKind
 */

import { duration, t } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";

/** How much longer an exam can be made at once, in seconds. */
const EXTENSIONS = [60, 300, 600, 900, 1200, 1800, 3600];
const USUAL = "600";

/** The dialog; it answers with a promise. */
export class ExamDialog {
  constructor() {
    this._dialog = /** @type {HTMLDialogElement} */ (element("several-dialog"));
    this._seconds = /** @type {HTMLSelectElement} */ (element("several-seconds"));
    /** @type {(answer: {seconds: number} | null) => void} */ this._answer = () => {};
    this._dialog.addEventListener("close", () => {
      const yes = this._dialog.returnValue === "yes";
      this._answer(yes ? { seconds: Number(this._seconds.value) } : null);
    });
  }

  /**
   * Ask; resolves with `null` for no.
   * @param {{kind: BatchKind, question: string, who: string, means: string}} what
   * @returns {Promise<{seconds: number} | null>}
   */
  ask({ kind, question, who, means }) {
    setText(element("several-question"), question);
    setText(element("several-who"), who);
    element("several-who").hidden = who === "";
    setText(element("several-means"), means);
    element("several-longer").hidden = kind !== "extend_exam";
    this._seconds.replaceChildren(...EXTENSIONS.map((seconds) => new Option(`+ ${duration(seconds)}`, String(seconds))));
    this._seconds.value = USUAL;
    const yes = element("several-yes");
    setText(yes, t(`several.yes.${kind}`));
    yes.classList.toggle("danger", kind === "finish");
    yes.classList.toggle("primary", kind !== "finish");
    this._dialog.returnValue = "no";
    this._dialog.showModal();
    return new Promise((resolve) => {
      this._answer = resolve;
    });
  }
}
