/**
 * The gallery: pictures that nobody has looked at, one after another, by keyboard. A verdict is sent without waiting for the
 * answer; if the server does not take it, the picture is there again, with the reason.
 *
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 * @typedef {import("./queue.js").Picture} Picture
 * @typedef {import("./queue.js").Verdict} Verdict
 */

import { moment, person, t, useTexts } from "../../common/i18n.js";
import { offer } from "../../common/disabled.js";
import { element, parts, setText } from "../../common/elements.js";
import { pictureReason, REASONS } from "../../common/picture-reasons.js";
import { nameOf } from "../texts.js";
import { keyOf } from "../toolbar/keyboard.js";
import { PictureLoader } from "./loader.js";
import { PictureQueue } from "./queue.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";

useTexts({ en, ko });

/** The reason that is offered only for a picture that must show something. */
const NO_CHALLENGE = "NO_CHALLENGE";
const AHEAD = 8;
const BEHIND = 3;

/** The dialog, and the button of the toolbar that opens it. */
export class Gallery {
  /** @param {WatchedPlan} plan @param {() => boolean} shortcuts whether single letters are shortcuts */
  constructor(plan, shortcuts) {
    this._dialog = /** @type {HTMLDialogElement} */ (element("gallery"));
    this._image = /** @type {HTMLImageElement} */ (element("gallery-picture"));
    this._form = /** @type {HTMLFormElement} */ (element("gallery-reason"));
    this._words = /** @type {HTMLInputElement} */ (element("gallery-words"));
    this._shortcuts = shortcuts;
    this._failure = "";
    /** @type {string | null} */ this._shownKey = null;
    this.use(plan);
    this._wire();
  }

  /** Show the pictures of another plan. @param {WatchedPlan} plan */
  use(plan) {
    this._plan = plan;
    this._queue = new PictureQueue();
    this._loader?.want([]);
    this._loader = new PictureLoader((path) => plan.web.get(path));
    this._loader.addEventListener("change", () => this.draw());
    this.draw();
  }

  /** Open the gallery. @param {string | null} [owner] only the pictures of this examinee */
  open(owner = null) {
    this._update();
    this._queue.begin(owner);
    this._failure = "";
    this._closeForm();
    if (!this._dialog.open) this._dialog.showModal();
    this.draw();
    element("gallery-name").focus();
  }

  _update() {
    this._queue.update([...this._plan.people.all.values()].map(({ seen }) => seen));
  }

  _wire() {
    element("gallery-open").addEventListener("click", () => this.open());
    element("gallery-close").addEventListener("click", () => this._dialog.close());
    element("gallery-accept").addEventListener("click", () => this._decide("accepted"));
    element("gallery-reject").addEventListener("click", () => this._openForm());
    element("gallery-previous").addEventListener("click", () => this._move(-1));
    element("gallery-next").addEventListener("click", () => this._move(1));
    element("gallery-zoom").addEventListener("click", () => this._zoom());
    element("gallery-cancel").addEventListener("click", () => this._closeForm());
    element("gallery-again").addEventListener("click", () => this._shownKey && this._loader?.again(this._shownKey));
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._decide("rejected", this._words.value.trim());
    });
    this._dialog.addEventListener("keydown", (event) => this._key(event));
    this._dialog.addEventListener("cancel", (event) => {
      if (this._form.hidden) return;
      event.preventDefault();
      this._closeForm();
    });
    this._dialog.addEventListener("close", () => this._loader?.want([]));
  }

  // -- what a person does ----------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === this._words) return;
    const key = keyOf(event);
    if (!this._form.hidden) {
      const reason = REASONS[Number(key) - 1];
      if (reason === undefined || !this._shortcuts() || (reason === NO_CHALLENGE && !this._queue.current?.challenge)) return;
      this._decide("rejected", reason);
    } else if (key === "ArrowRight" || key === "ArrowLeft") this._move(key === "ArrowRight" ? 1 : -1);
    else if (!this._shortcuts() || event.repeat) return;
    else if (key === "a") element("gallery-accept").click();
    else if (key === "r") element("gallery-reject").click();
    else if (key === "z") this._zoom();
    else return;
    event.preventDefault();
  }

  /** @param {number} step */
  _move(step) {
    this._closeForm();
    this._queue.move(step);
    this.draw();
  }

  /** Decide about the shown picture, and go on. @param {Verdict} verdict @param {string} [reason] */
  _decide(verdict, reason = "") {
    const picture = this._queue.decide(verdict);
    this._closeForm();
    if (picture === null) return;
    this._failure = "";
    void this._send(picture, verdict, reason);
    this._say(t(`gallery.said.${verdict}`, { who: this._who(picture) }));
    this.draw();
  }

  /** @param {Picture} picture @param {Verdict} verdict @param {string} reason */
  async _send(picture, verdict, reason) {
    const queue = this._queue;
    try {
      await this._plan.client.reviewCapture(picture.examineeId, picture.captureId, verdict, { reason: reason || undefined });
    } catch (error) {
      const { code, detail } = /** @type {{code?: string, detail?: string}} */ (error);
      if (code === undefined) throw error;
      queue.failed(picture.key);
      this._failure = t("gallery.failed", { who: this._who(picture), why: detail ?? code });
      this._say(this._failure);
      this.draw();
    }
  }

  _openForm() {
    const { current } = this._queue;
    if (current === null || this._queue.verdictOf(current) === "rejected") return;
    this._form.hidden = false;
    this._words.value = "";
    this._draw();
    /** @type {HTMLElement} */ (element("gallery-reasons").querySelector("button")).focus();
  }

  _closeForm() {
    if (this._form.hidden) return;
    this._form.hidden = true;
    element("gallery-name").focus();
  }

  _zoom() {
    const large = this._dialog.dataset.zoom !== "large";
    if (large) this._dialog.dataset.zoom = "large";
    else delete this._dialog.dataset.zoom;
    element("gallery-zoom").setAttribute("aria-pressed", String(large));
  }

  /** @param {string} sentence */
  _say(sentence) {
    setText(element("gallery-said"), sentence);
  }

  /** @param {Picture} picture */
  _who(picture) {
    return nameOf(this._plan.people.all.get(picture.examineeId) ?? { id: picture.examineeId, name: null });
  }

  // -- what is shown ---------------------------------------------------------------------------------

  /** Draw the count in the toolbar, and the open gallery. */
  draw() {
    if (this._queue === undefined) return;
    this._update();
    const { waiting } = this._queue;
    setText(element("gallery-open-count"), String(waiting));
    element("gallery-open").classList.toggle("primary", waiting > 0);
    element("gallery-open").classList.toggle("quiet", waiting === 0);
    element("gallery-open").title = t("gallery.open.means", { n: waiting });
    if (this._dialog.open) this._draw();
  }

  _draw() {
    const { current, at, pictures, waiting } = this._queue;
    this._loader?.want(this._queue.wanted(AHEAD, BEHIND));
    const title = current === null ? t("gallery") : t("gallery.which", { who: this._who(current) });
    setText(element("gallery-name"), title);
    const place = current === null ? "" : t("gallery.place", { n: at + 1, all: pictures.length });
    setText(element("gallery-count"), [place, t("gallery.waiting", { n: waiting })].filter(Boolean).join(" · "));
    element("gallery-note").hidden = this._failure === "";
    setText(element("gallery-note"), this._failure);
    element("gallery-nothing").hidden = current !== null;
    element("gallery-body").hidden = current === null;
    element("gallery-strip").hidden = pictures.length < 2;
    this._drawReasons();
    if (current !== null) this._drawPicture(current);
    this._drawStrip();
  }

  /** @param {Picture} picture */
  _drawPicture(picture) {
    const verdict = this._queue.verdictOf(picture);
    const loaded = this._loader?.find(picture.key);
    const there = loaded?.state === "loaded";
    if (this._shownKey !== picture.key) this._say(t("gallery.said.shown", { who: this._who(picture) }));
    this._shownKey = picture.key;
    if (there && this._image.src !== loaded.url) this._image.src = loaded.url;
    this._image.hidden = !there;
    this._image.alt = t("picture.alt", { who: this._who(picture) });
    const failed = loaded?.state === "failed";
    setText(element("gallery-loading"), there ? "" : failed ? t("picture.failed", { why: loaded.why }) : t("picture.loading"));
    element("gallery-again").hidden = !failed;
    /** @type {[string, string][]} */
    const facts = [
      ["gallery.time", moment(picture.time, this._plan.now())],
      ["gallery.when", picture.when === "in" ? "" : t(`gallery.when.${picture.when}`)],
      ["gallery.device", picture.deviceId ?? ""],
      ["gallery.reason", verdict === "rejected" ? pictureReason(picture.reason) : ""],
      ["gallery.by", person(picture.by ?? "", picture.byName)],
    ];
    element("gallery-facts").replaceChildren(...facts.filter(([, value]) => value).map(([key, value]) => {
      const line = parts("div", "dt", "dd");
      setText(line.children[0], t(key));
      setText(line.children[1], value);
      return line;
    }));
    element("gallery-challenge").hidden = !picture.challenge;
    const unreadable = element("gallery-reasons").children[REASONS.indexOf(NO_CHALLENGE)];
    if (unreadable instanceof HTMLElement) unreadable.hidden = !picture.challenge;
    setText(element("gallery-challenge-value"), picture.challenge ?? "");
    const chip = element("gallery-verdict");
    chip.dataset.tone = verdict === "accepted" ? "good" : verdict === "rejected" ? "warn" : "quiet";
    setText(chip, t(`gallery.verdict.${verdict ?? "none"}`));
    offer(element("gallery-accept"), verdict === "accepted" ? t("gallery.accept.not") : "");
    offer(element("gallery-reject"), verdict === "rejected" ? t("gallery.reject.not") : "");
    const { at, pictures } = this._queue;
    offer(element("gallery-previous"), at <= 0 ? t("gallery.previous.not") : "");
    offer(element("gallery-next"), at >= pictures.length - 1 ? t("gallery.next.not") : "");
    element("gallery-acts").hidden = !this._form.hidden;
  }

  /** Draw the small pictures around the shown one. */
  _drawStrip() {
    const { at, pictures } = this._queue;
    const near = pictures.slice(Math.max(0, at - BEHIND), at + AHEAD);
    const strip = element("gallery-strip");
    while (strip.children.length > near.length) strip.lastElementChild?.remove();
    near.forEach((picture, place) => {
      const item = strip.children[place] ?? strip.appendChild(this._thumbnail());
      const button = /** @type {HTMLElement} */ (item.firstElementChild);
      const image = /** @type {HTMLImageElement} */ (button.firstElementChild);
      const loaded = this._loader?.find(picture.key);
      button.dataset.key = picture.key;
      button.dataset.verdict = this._queue.verdictOf(picture) ?? "";
      if (picture.key === this._shownKey) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      const verdict = t(`gallery.verdict.${this._queue.verdictOf(picture) ?? "none"}`);
      button.setAttribute("aria-label", `${this._who(picture)}: ${verdict}`);
      if (loaded?.small && image.src !== loaded.small) image.src = loaded.small;
      image.hidden = !loaded?.small;
    });
  }

  /** Make the button of a small picture. */
  _thumbnail() {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.append(Object.assign(document.createElement("img"), { alt: "" }));
    button.addEventListener("click", () => {
      this._queue.show(button.dataset.key ?? "");
      this._closeForm();
      this.draw();
    });
    item.append(button);
    return item;
  }

  /** Draw the usual reasons, in the language in use. */
  _drawReasons() {
    const list = element("gallery-reasons");
    if (list.lang === document.documentElement.lang && list.children.length > 0) return;
    list.lang = document.documentElement.lang;
    list.replaceChildren(...REASONS.map((reason, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(Object.assign(document.createElement("kbd"), { textContent: String(at + 1) }), ` ${pictureReason(reason)}`);
      button.addEventListener("click", () => this._decide("rejected", reason));
      return button;
    }));
  }
}
