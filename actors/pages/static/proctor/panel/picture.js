/**
 * The picture from an examinee's phone, in the panel.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("../session/web-api.js").WebApi} WebApi
 */

import { moment, t } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { pictureReason } from "../../common/picture-reasons.js";
import { nameOf } from "../texts.js";

/** The picture's section of the panel. */
export class Picture {
  /** @param {WebApi} web */
  constructor(web) {
    this.web = web;
    this._image = /** @type {HTMLImageElement} */ (element("picture"));
    /** The examinee and the address of the wanted picture. */ this._wanted = "";
  }

  /** Show an examinee's picture; load it if it is a new one. @param {Person} person */
  show(person) {
    const { seen } = person;
    const section = element("picture-section");
    section.hidden = seen.imageUrl === null && seen.mobileSync !== "COMPLETED" && seen.captures.length === 0;
    element("picture-look").hidden = seen.captures.length === 0;
    if (section.hidden) {
      this.forget();
      return;
    }
    this._image.alt = t("picture.alt", { who: nameOf(person) });
    const wanted = `${person.id} ${seen.mobileSyncVersion}`;
    if (!this._image.hidden) setText(element("picture-text"), captionOf(person, this.web.now()));
    if (this._wanted !== wanted) {
      this._wanted = wanted;
      void this._load(person, wanted);
    }
  }

  /** Load the picture. @param {Person} person @param {string} wanted */
  async _load(person, wanted) {
    const image = this._image;
    setText(element("picture-text"), t("picture.loading"));
    try {
      const response = await this.web.get(`/captures/${person.id}/sync_cap.jpg`);
      const url = URL.createObjectURL(await response.blob());
      if (this._wanted !== wanted) {
        URL.revokeObjectURL(url);
        return;
      }
      URL.revokeObjectURL(image.src);
      image.src = url;
      await image.decode();
      if (this._wanted !== wanted) return;
      image.hidden = false;
      setText(element("picture-text"), captionOf(person, this.web.now()));
    } catch (error) {
      if (this._wanted !== wanted) return;
      image.hidden = true;
      setText(element("picture-text"), t("picture.failed", { why: String(/** @type {Error} */ (error).message) }));
    }
  }

  /** Load the picture again, if that failed before. @param {Person} person */
  again(person) {
    if (this._image.hidden) this._wanted = "";
    this.show(person);
  }

  /** Remove the picture. */
  forget() {
    this._wanted = "";
    if (this._image.src) URL.revokeObjectURL(this._image.src);
    this._image.removeAttribute("src");
    this._image.hidden = true;
  }
}

/** Return the caption: the phone, the time of arrival, and what a proctor says about it. @param {Person} person @param {number} now ms */
function captionOf({ seen }, now) {
  const { review } = seen;
  const from = pictureFrom(seen, now);
  if (!review) return from;
  const why = review.verdict === "rejected" ? pictureReason(review.reason) : "";
  return [from, t(`gallery.verdict.${review.verdict}`), why].filter(Boolean).join(" · ");
}

/** @param {Person["seen"]} seen @param {number} now */
function pictureFrom(seen, now) {
  return t("picture.from", { device: seen.deviceId ?? "?", time: seen.mobileSyncAt ? moment(seen.mobileSyncAt, now) : "?" });
}
