/**
 * Buttons that cannot be used now, and say why: as their description and tooltip, and in words when somebody presses one. They
 * keep the focus, which `disabled` would take away.
 */

/** Screen readers announce a text that comes so long (ms) after its line. */
const SAID_AFTER_MS = 100;

/** The line that says why, and the button that was pressed in vain. */
let shown = /** @type {{line: HTMLElement, button: HTMLElement} | null} */ (null);
let listening = false;

/**
 * Let a button be used, or not.
 *
 *     offer(element("readmit"), isShutOut ? "" : t("act.readmit.not"));
 *
 * @param {HTMLElement} button @param {string} whyNot empty: it can be used
 */
export function offer(button, whyNot) {
  if (!listening) addEventListener("click", pressed, { capture: true });
  listening = true;
  button.setAttribute("aria-disabled", String(whyNot !== ""));
  if (button.title === whyNot) return;
  button.title = whyNot;
  if (shown?.button === button) hide();
}

/** Say why, instead of what the button does. @param {Event} event */
function pressed(event) {
  const button = event.target instanceof Element ? event.target.closest('button[aria-disabled="true"]') : null;
  if (!(button instanceof HTMLElement) || button.title === "") return;
  event.preventDefault();
  event.stopImmediatePropagation();
  hide();
  const line = document.createElement("p");
  line.className = "hint";
  line.setAttribute("role", "status");
  (button.closest("div.row, div.stack") ?? button).after(line);
  shown = { line, button };
  button.addEventListener("blur", hide, { once: true });
  setTimeout(() => (line.textContent = button.title), SAID_AFTER_MS);
}

function hide() {
  shown?.line.remove();
  shown = null;
}
